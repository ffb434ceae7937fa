"""`HttpConnection`: uvicorn's HTTP/1.1 connection with limits to clients that do not read, and errors of one shape."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from vcore.server.errors import ApiError
from vcore.server.head_limits import HeadLimits
from vcore.server.limited_connection import final_answer

if TYPE_CHECKING:
    from vcore.server.client_warnings import ClientWarnings

__all__ = ["STALL_TIMEOUT_S", "HttpConnection"]

STALL_TIMEOUT_S = 60.0
"""Seconds after which a client that takes no byte of what waits for it is given up."""


class HttpConnection(HeadLimits):
    """Gives up clients that have stopped to read, which uvicorn waits for without end.

    What is written beyond the transport's limit pauses the writing. If nothing of that is taken for a while, the
    connection is aborted: its request ends as if the client had left, and makes room for others. Whoever reads
    slowly, but reads, is waited for.
    """

    _stall_timer: asyncio.TimerHandle | None = None
    _num_unsent = 0
    """When the timer was started."""
    _in_body = False
    """Whether the parser stands between a head and the end of what belongs to it."""

    def __init__(self, *args: Any, warnings: ClientWarnings | None = None, **kwargs: Any) -> None:
        """As uvicorn does; `warnings` limits what clients can make it log."""
        super().__init__(*args, **kwargs)
        if warnings is not None:
            self.logger = warnings.logger

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is sent any more."""
        self._stop_stall_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read as fast as is written."""
        super().pause_writing()
        self._start_stall_timer()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._stop_stall_timer()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """There was no other request. To close is to wait until all is read, for which there was time enough."""
        if self._stall_timer is None and self.transport.get_write_buffer_size():
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def on_headers_complete(self) -> None:
        """The parser sees the end of a head."""
        super().on_headers_complete()
        self._in_body = True

    def on_message_complete(self) -> None:
        """The parser sees the end of a request."""
        self._in_body = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP: say so, unless an answer is being sent, or was, to the request that it is part of."""
        cycle = self.cycle
        if self._in_body:
            may_answer = cycle is self._running and not cycle.response_started
            if may_answer:  # in the place of the application, for which the client has left
                cycle.disconnected = True
                cycle.message_event.set()
        else:
            may_answer = cycle is None or cycle.response_complete
        if may_answer:
            self.transport.write(final_answer(ApiError(400, msg, code="invalid_http"), "Bad Request"))
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """A client offers another protocol, as some do with every request: HTTP lets a server go on with this one."""

    def _start_stall_timer(self) -> None:
        self._stop_stall_timer()
        self._num_unsent = self.transport.get_write_buffer_size()
        self._stall_timer = self.loop.call_later(STALL_TIMEOUT_S, self._check_progress)

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _check_progress(self) -> None:
        if self.transport.get_write_buffer_size() < self._num_unsent:
            self._start_stall_timer()
        else:
            self._stall_timer = None
            self.transport.abort()
