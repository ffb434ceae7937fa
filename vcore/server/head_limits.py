"""`HeadLimits`: uvicorn's HTTP/1.1 connection with limits to a request's head, which it has none for.

Without them a client, whether it has a key or not, could fill the memory with headers that never end; and as the parser
puts a long URL together from its pieces, copying all of it each time, stop everybody else for seconds.
"""

from __future__ import annotations

import asyncio
from typing import Any

from vcore.server.errors import ApiError
from vcore.server.limited_connection import LimitedConnection, final_answer

__all__ = ["MAX_HEAD_BYTES", "HeadLimits"]

MAX_HEAD_BYTES = 64 * 1024
"""A head that is not over after so many bytes, and what came with the last of them, is refused (431)."""


class HeadLimits(LimitedConnection):
    """Ends connections whose heads, or headers behind a body, are too long, and those whose heads are too slow.

    Between requests uvicorn's own timeout holds, and in bodies that of `Bodies`.
    """

    def __init__(self, *args: Any, head_timeout_s: float = 20.0, **kwargs: Any) -> None:
        """As uvicorn does; `head_timeout_s` is from the opening, or from a head's first byte, to the head's end."""
        super().__init__(*args, **kwargs)
        self._head_timeout_s = head_timeout_s
        self._num_bytes = 0
        """Of a head, or of what follows a body, so far."""
        self._progressed = False
        """Whether the parser came to the end of a head, or to a piece of a body."""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """The first head may come."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing comes any more."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; end it if that is too much without progress."""
        if self.refused:
            return
        self._progressed = False
        super().data_received(data)
        self._num_bytes = 0 if self._progressed else self._num_bytes + len(data)
        if self.refused or self.transport.is_closing():  # by what was parsed
            return
        if self._num_bytes > MAX_HEAD_BYTES:
            self._refuse()
        elif self._num_bytes and self._timer is None:  # line breaks before a head are not of it
            self._start_timer()

    def on_message_begin(self) -> None:
        """The parser sees the first byte of a head."""
        super().on_message_begin()
        self._start_timer()

    def on_headers_complete(self) -> None:
        """The parser sees the end of a head."""
        self._progressed = True
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """The parser sees a piece of a body."""
        self._progressed = True
        super().on_body(body)

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self._head_timeout_s, self._time_out)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def _answers(self) -> bool:
        """Whether an earlier request of the connection is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _time_out(self) -> None:
        self._timer = None
        if self._answers:
            self._start_timer()
        elif not self.transport.is_closing():
            self.transport.close()

    def _refuse(self) -> None:
        if not self._answers:
            message = f"the request's line and headers take more than {MAX_HEAD_BYTES} bytes"
            error = ApiError(431, message, code="head_too_large")
            self.transport.write(final_answer(error, "Request Header Fields Too Large"))
        self.transport.close()
