"""Requests that offer another protocol, as Java's client does with each: they are read as all others are."""

from __future__ import annotations

from typing import Any

import httptools
import pytest

from vcore.server.request_parser import RequestParser

OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
BODY = b'{"prompt": "GET / HTTP/1.1"}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"5\r\n" + BODY[:5] + b"\r\n%x\r\n" % (len(BODY) - 5) + BODY[5:] + b"\r\n0\r\n\r\n"


class Connection:
    """Notes what it is told, the pieces of a body joined."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.told: list[list[bytes]] = []
        self.bodies: list[bytes] = []
        self.num_ends = 0
        self.parser = RequestParser(self)  # type: ignore[arg-type]

    def on_message_begin(self) -> None:
        self.headers, self.url = [], b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        assert not self.parser.should_upgrade()
        names = [name for name, _ in self.headers if name not in (b"connection", b"upgrade", b"http2-settings")]
        self.told.append([self.parser.get_method(), self.parser.get_http_version().encode(), self.url, *names])
        self.bodies.append(b"")

    def on_body(self, body: bytes) -> None:
        self.bodies[-1] += body

    def on_message_complete(self) -> None:
        self.num_ends += 1
        assert self.num_ends == len(self.told)


def requests(offer: bytes) -> bytes:
    """Of every kind of body, one behind the other."""
    return b"".join(
        [
            b"POST /a HTTP/1.1\r\n" + LENGTH + offer + b"\r\n" + BODY,
            b"GET /b HTTP/1.1\r\n" + offer + b"Host: x\r\n\r\n",
            b"POST /c HTTP/1.1\r\n" + offer + CHUNKED + b"\r\n" + CHUNKS,
            b"POST /d HTTP/1.1\r\n" + LENGTH + b"\r\n" + BODY,
            b"POST /e HTTP/1.1\r\n" + offer + b"Content-Length: 0\r\n\r\n",
        ]
    )


def read(data: bytes, size: int) -> tuple[Any, ...]:
    connection = Connection()
    for start in range(0, len(data), size):
        connection.parser.feed_data(data[start : start + size])
    return connection.told, connection.bodies, connection.num_ends


@pytest.mark.parametrize("size", [1, 2, 7, 64, 100_000])
def test_an_offer_changes_nothing(size: int) -> None:
    plain = read(requests(b""), size)
    assert plain[1:] == ([BODY, b"", BODY, BODY, b""], 5)
    assert read(requests(OFFER), size) == plain


def test_an_offer_hides_nothing_that_is_wrong_behind_it() -> None:
    with pytest.raises(httptools.HttpParserError):
        read(b"POST / HTTP/1.1\r\n" + OFFER + CHUNKED + b"\r\nno chunk\r\n", 100_000)
    with pytest.raises(httptools.HttpParserError):
        read(b"GET / HTTP/1.1\r\n" + OFFER + b"\r\n" + b"\x00\x01\x02", 100_000)


def test_the_end_of_a_connection_is_seen_beside_an_offer() -> None:
    connection = Connection()
    connection.parser.feed_data(b"GET / HTTP/1.1\r\nConnection: close, Upgrade\r\nUpgrade: h2c\r\n\r\n")
    assert connection.num_ends == 1
