"""`HTTPConnection`: one connection of a load generator, which does one exchange after another and nothing else.

General clients wake a task for every piece of a body; with hundreds of streams that costs more than the server's own
work. Here a piece goes from the socket through the parser (httptools) to a function, with the time at which it came.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import httptools

__all__ = ["BodySink", "ExchangeError", "HTTPConnection"]

BodySink = Callable[[int, bytes, float], None]
"""Gets the status, a piece of the body, and when it came. What it raises ends the exchange."""


class ExchangeError(Exception):
    """An exchange failed. `kind` is ``connect``, ``cut`` (the server closed too early) or ``malformed``."""

    def __init__(self, kind: str, message: str, *, untouched: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.untouched = untouched
        """Whether not a byte of an answer had come."""


class HTTPConnection(asyncio.Protocol):
    """A connection, kept alive between exchanges where the server allows it."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None  # set for an exchange
        self._done: asyncio.Future[None] | None = None
        self._sink: BodySink | None = None
        self._now = 0.0
        self._touched = False
        self._headed = False
        self._framed = False
        self._keep = False
        self.num_exchanges = 0
        """How many ended."""

    @property
    def reusable(self) -> bool:
        """Whether another exchange may be tried."""
        return self._keep and self._transport is not None and not self._transport.is_closing()

    async def exchange(self, request: bytes, sink: BodySink) -> int:
        """Send a request and hand on the body of its answer as it comes.

        Args:
            request: head and body.
            sink: called for each piece of the answer's body.

        Returns:
            The status.

        Raises:
            ExchangeError: no whole answer came.
            Exception: whatever `sink` raised.
        """
        assert self._transport is not None
        if self._transport.is_closing():
            raise ExchangeError("cut", "the connection was closed", untouched=True)
        self._parser = httptools.HttpResponseParser(self)
        self._done = asyncio.get_running_loop().create_future()
        self._sink = sink
        self._touched = self._headed = self._framed = self._keep = False
        self._transport.write(request)
        await self._done
        self.num_exchanges += 1
        status: int = self._parser.get_status_code()
        return status

    def close(self) -> None:
        """Close it; the server sees a client that has gone."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._done is None or self._done.done():
            self.close()  # bytes that nobody asked for
            return
        self._now, self._touched = time.monotonic(), True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(ExchangeError("malformed", f"no HTTP: {error}"))
            self.close()

    def eof_received(self) -> bool:
        """Close, too."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """End the exchange, well if its body had no other end than this."""
        if error is None and self._headed and not self._framed:
            self._end(None)
            return
        said = "the server closed the connection before its answer ended"
        self._end(ExchangeError("cut", f"{said}: {error}" if error else said, untouched=not self._touched))

    # The parser's

    def on_header(self, name: bytes, value: bytes) -> None:
        """See whether the body says where it ends."""
        lowered = name.lower()
        if lowered == b"content-length" or (lowered == b"transfer-encoding" and b"chunked" in value.lower()):
            self._framed = True

    def on_headers_complete(self) -> None:
        """A body may follow."""
        self._headed = True

    def on_body(self, body: bytes) -> None:
        """Hand it on."""
        if self._sink is None or self._done is None or self._done.done():
            return
        try:
            self._sink(self._parser.get_status_code(), body, self._now)
        except Exception as error:  # not through the parser, which would hide it
            self._end(error)
            self.close()

    def on_message_complete(self) -> None:
        """The answer has come whole."""
        self._keep = self._parser.should_keep_alive()
        self._end(None)

    def _end(self, error: BaseException | None) -> None:
        if self._done is None or self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._keep = False
            self._done.set_exception(error)
