"""`HTTPClient`: exchanges with one server over connections that are kept and used again."""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import SplitResult, urlsplit

from vcore.bench.serve.http_exchange import BodySink, ExchangeError, HTTPConnection
from vcore.errors import ConfigError
from vcore.version import __version__

__all__ = ["HTTPClient"]

_CONNECT_TIMEOUT_S = 30.0


class HTTPClient:
    """HTTP/1.1 to one server; as many connections as exchanges are under way at a time."""

    def __init__(self, url: str, *, api_key: str | None = None, verify: bool = True) -> None:
        """Args:
        url: such as ``http://localhost:8000``; a path, such as ``/v1``, goes before that of each request.
        api_key: goes as a bearer token with each request.
        verify: whether a TLS certificate must be valid.

        Raises:
            ConfigError: the URL is none of a server.
        """
        parts = _checked(url)
        assert parts.hostname is not None
        secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if secure else 80)
        self._path = parts.path.rstrip("/")
        self._tls = _tls(verify) if secure else None
        key = "" if api_key is None else f"Authorization: Bearer {api_key}\r\n"
        self._headers = f"Host: {parts.netloc.rpartition('@')[2]}\r\nUser-Agent: vcore/{__version__}\r\n{key}"
        self._idle: list[HTTPConnection] = []

    async def exchange(self, method: str, path: str, body: bytes, sink: BodySink) -> int:
        """One request and its answer, whose body goes to `sink` as it comes.

        A kept connection that turns out to have been closed meanwhile is replaced, once.

        Args:
            method: such as ``POST``.
            path: after the path of the URL.
            body: JSON, or nothing.
            sink: see `HTTPConnection.exchange`.

        Returns:
            The status.

        Raises:
            ExchangeError: no whole answer came.
        """
        request = self._request(method, path, body)
        if self._idle:
            kept = self._idle.pop()
            try:
                return await self._exchange_over(kept, request, sink)
            except ExchangeError as error:
                if not error.untouched:
                    raise
        return await self._exchange_over(await self._connect(), request, sink)

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a small answer.

        Raises:
            ExchangeError: no whole answer came.
        """
        pieces: list[bytes] = []
        status = await self.exchange("GET", path, b"", lambda _status, piece, _now: pieces.append(piece))
        return status, b"".join(pieces)

    def close(self) -> None:
        """Close what is kept."""
        while self._idle:
            self._idle.pop().close()

    def _request(self, method: str, path: str, body: bytes) -> bytes:
        content = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        return f"{method} {self._path}{path} HTTP/1.1\r\n{self._headers}{content}\r\n".encode() + body

    async def _exchange_over(self, connection: HTTPConnection, request: bytes, sink: BodySink) -> int:
        try:
            return await connection.exchange(request, sink)
        finally:
            if connection.reusable:
                self._idle.append(connection)
            else:
                connection.close()

    async def _connect(self) -> HTTPConnection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                _, connection = await loop.create_connection(HTTPConnection, self._host, self._port, ssl=self._tls)
        except TimeoutError:
            raise ExchangeError("connect", f"no connection within {_CONNECT_TIMEOUT_S:g} s") from None
        except OSError as error:
            raise ExchangeError("connect", str(error)) from None
        return connection


def _checked(url: str) -> SplitResult:
    expected = "expected http://HOST[:PORT] or https://HOST[:PORT]"
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises if it is none
        if (
            parts.scheme in ("http", "https")
            and parts.hostname
            and url.isascii()
            and url.isprintable()
            and " " not in url
        ):
            return parts
    except ValueError as error:
        raise ConfigError(f"--url: found {url!r}, {expected}: {error}") from None
    raise ConfigError(f"--url: found {url!r}, {expected}")


def _tls(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
