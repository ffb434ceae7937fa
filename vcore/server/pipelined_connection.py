"""`PipelinedConnection`: uvicorn's HTTP/1.1 connection, which sees its client leave although that sent requests ahead.

uvicorn tells only the last request that came that its client has left, and stops to read when one came ahead, so that
it does not even notice. The request that runs would run to its end for nobody, without a place among the connections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from vcore.server.request_parser import RequestParser

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

__all__ = ["MAX_AHEAD", "PipelinedConnection"]

MAX_AHEAD = 16
"""Requests that may wait for the answer to an earlier one. A client that sends more is cut off: to read on is the only
way to see it leave."""


class PipelinedConnection(HttpToolsProtocol):
    """Reads on while it answers, whatever was sent ahead, up to a limit; an end reaches the request that runs."""

    _running: RequestResponseCycle | None = None
    """The request that is, or was last, given to the application."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As uvicorn does."""
        super().__init__(*args, **kwargs)
        self.parser = RequestParser(self)  # type: ignore[assignment]  # it has what uvicorn calls

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that runs, which need not be the last one that came."""
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        parser = cast("RequestParser | None", self.parser)
        super().connection_lost(exc)
        if parser is not None:
            parser.close()

    def data_received(self, data: bytes) -> None:
        """Parse what came, and see to it that more can come."""
        super().data_received(data)
        if not self.pipeline or self.transport.is_closing():
            return
        if len(self.pipeline) > MAX_AHEAD or sum(len(cycle.body) for cycle, _ in self.pipeline) > HIGH_WATER_LIMIT:
            self.transport.abort()
        else:
            self.flow.resume_reading()

    def on_headers_complete(self) -> None:
        """The parser sees the end of a head: the request runs now, or waits for its turn."""
        before = self.cycle
        super().on_headers_complete()
        if before is None or before.response_complete:
            self._running = self.cycle

    def on_response_complete(self) -> None:
        """An answer is whole: the next one that waits runs."""
        following = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if following is not None:
            self._running = following
