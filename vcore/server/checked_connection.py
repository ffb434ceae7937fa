"""`CheckedConnection`: uvicorn's HTTP/1.1 connection, which answers what is no HTTP when its turn comes.

    no head, or a chunk that is none                     400, and the connection is closed
    behind a request that is being answered              the same, once that answer is whole
    in a body whose request has its answer already       the connection is closed

uvicorn closes it at once, so that an answer on its way is lost, as where a body is longer than was declared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vcore.server.errors import ApiError
from vcore.server.head_limits import HeadLimits
from vcore.server.limited_connection import final_answer

if TYPE_CHECKING:
    from vcore.server.client_warnings import ClientWarnings

__all__ = ["CheckedConnection"]


class CheckedConnection(HeadLimits):
    """Says what is wrong in the shape of all errors. What comes after that is not looked at."""

    _in_body = False
    """Whether the parser stands between a head and the end of what belongs to it."""
    _refusal: bytes | None = None
    """The last answer of the connection; None as long as there is nothing wrong."""

    def __init__(self, *args: Any, warnings: ClientWarnings | None = None, **kwargs: Any) -> None:
        """As uvicorn does; `warnings` limits what clients can make it log."""
        super().__init__(*args, **kwargs)
        if warnings is not None:
            self.logger = warnings.logger

    def on_headers_complete(self) -> None:
        """The parser sees the end of a head."""
        super().on_headers_complete()
        self._in_body = True

    def on_message_complete(self) -> None:
        """The parser sees the end of a request."""
        self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is whole."""
        super().on_response_complete()
        self._refuse_in_turn()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP. Of whatever else comes, the parser says the same."""
        if self._refusal is not None:
            return
        self._refusal = final_answer(ApiError(400, msg, code="invalid_http"), "Bad Request")
        if self._in_body:
            self._end_broken()
        self.flow.resume_reading()  # to see the client leave
        self._refuse_in_turn()

    def _end_broken(self) -> None:
        """End the request whose body is broken."""
        broken = self.cycle
        if self._running is not None and broken is not self._running:  # its turn has not come
            self.pipeline.popleft()
            self.cycle = self.pipeline[0][0] if self.pipeline else self._running
        elif broken.response_started:
            self._refusal = b""
        else:  # for the application its client has left
            broken.disconnected = broken.response_complete = True
            broken.message_event.set()

    def _refuse_in_turn(self) -> None:
        if self._refusal is None or self._answers or self.transport.is_closing():
            return
        if self._refusal and self._in_body:  # there may be more of it on its way
            self._say_last(self._refusal)
        else:
            self.transport.write(self._refusal)
            self.transport.close()
