"""`LimitedConnection`: uvicorn's HTTP/1.1 connection with a place among `ConnectionLimits`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from vcore.server.connection_limits import ConnectionLimits
from vcore.server.errors import ApiError
from vcore.server.json_response import encode
from vcore.server.pipelined_connection import PipelinedConnection

__all__ = ["LimitedConnection", "final_answer"]

_LINGER_S = 1.0
"""How long a connection that was refused may take to read so. To close it at once, with its request unread, would reset
it, and the answer be lost."""

_REFUSAL = ApiError(
    503, "too many connections are open", type="server_error", code="too_many_connections", retry_after=1
)


def final_answer(error: ApiError, phrase: str) -> bytes:
    """A whole HTTP answer, for where no application can give one; the connection is closed after it."""
    body = encode(error.body())
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **{name.lower(): value for name, value in error.headers.items()},
    }
    lines = [f"HTTP/1.1 {error.status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


class LimitedConnection(PipelinedConnection):
    """Tells the limits when it waits for its client and when it works, and ends if there is no place for it."""

    def __init__(self, *args: Any, limits: ConnectionLimits | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = ConnectionLimits(sys.maxsize) if limits is None else limits
        self.refused = False
        """Whether it has had its last answer: what comes is ignored."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take a place, or be refused."""
        super().connection_made(transport)
        if not self._limits.enter(self):
            self._say_last(final_answer(_REFUSAL, "Service Unavailable"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the place."""
        self._limits.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; whoever was refused says it in vain."""
        if not self.refused:
            super().data_received(data)
            self._settle()

    def on_response_complete(self) -> None:
        """An answer is whole."""
        super().on_response_complete()
        self._settle()

    def drop(self) -> None:
        """End it at once; the request that it was sending ends as if its client had left."""
        self.transport.abort()

    def _settle(self) -> None:
        """Say where it stands: a later request that came already says nothing about the one that is answered."""
        cycle = self.cycle
        if self.pipeline or not (cycle is None or cycle.response_complete or cycle.more_body):
            self._limits.work(self)
        else:
            self._limits.wait(self)

    def _say_last(self, answer: bytes) -> None:
        """Answer, and close once the client may have read it, though it goes on to send."""
        self.refused = True
        self.transport.write(answer)
        if not self._limits.linger(self):
            self.transport.close()
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)
