"""`RequestParser`: httptools' parser, for which no request asks for another protocol.

A client may offer to go on with one (``Connection: Upgrade``), as Java's does for HTTP/2 with every request, and a
server that does not speak it answers as if nothing had been offered (RFC 9110, section 7.8). httptools leaves the body
out then, and takes what follows for the other protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httptools

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["RequestParser"]

_OF_HEADS = ("on_message_begin", "on_url", "on_header", "on_headers_complete")
_FRAMING = (b"content-length", b"transfer-encoding")


class RequestParser:
    """Parses all requests of a connection, and tells it what they hold."""

    def __init__(self, connection: HttpToolsProtocol) -> None:
        """Begin with a head; `connection` has the methods that httptools calls."""
        self._connection = connection
        self._in_copy = False
        """Whether a head is parsed that the connection knows already."""
        self._parser = self._new({name: getattr(connection, name) for name in _OF_HEADS})

    def feed_data(self, data: bytes) -> None:
        """Parse what came.

        Raises:
            httptools.HttpParserError: it is no HTTP.
        """
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = data[offer.args[0] :]
                self._decline()
            else:
                return

    def close(self) -> None:
        """Parse no more. It lets go of the connection, which would else be freed by the collector of garbage alone."""
        self._parser = None

    def get_http_version(self) -> str:
        """Of the last head."""
        version: str = self._parser.get_http_version()
        return version

    def get_method(self) -> bytes:
        """Of the last head."""
        method: bytes = self._parser.get_method()
        return method

    def should_keep_alive(self) -> bool:
        """Whether another request may follow the last one."""
        return bool(self._parser.should_keep_alive())

    def should_upgrade(self) -> bool:
        """Never."""
        return False

    def _new(self, of_heads: dict[str, Callable[..., None]]) -> Any:  # httptools has no types
        callbacks = SimpleNamespace(**of_heads, on_body=self._connection.on_body, on_message_complete=self._complete)
        parser = httptools.HttpRequestParser(callbacks)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return parser

    def _complete(self) -> None:
        if not self._parser.should_upgrade():  # else there may be a body
            self._connection.on_message_complete()

    def _decline(self) -> None:
        """Go on behind the head with a parser that has seen a copy of it, without the offer."""
        framing = [b"%b: %b" % header for header in self._connection.headers if header[0] in _FRAMING]
        self._parser = self._new({name: self._unless_in_copy(getattr(self._connection, name)) for name in _OF_HEADS})
        self._in_copy = True
        self._parser.feed_data(b"\r\n".join([b"POST / HTTP/1.1", *framing, b"", b""]))
        self._in_copy = False

    def _unless_in_copy(self, callback: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: bytes) -> None:
            if not self._in_copy:
                callback(*arguments)

        return call
