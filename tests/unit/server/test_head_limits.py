"""What happens to heads of requests that are too long or too slow, over a connection made by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from vcore.server.head_limits import MAX_HEAD_BYTES, HeadLimits

HEAD = b"POST /v1/x HTTP/1.1\r\nHost: server\r\n"
CHUNK = 16 * 1024


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Connection:
    """A connection to an application that reads a body and answers ``ok``."""

    def __init__(self, **options: Any) -> None:
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.num_body_bytes = 0
        self.num_requests = 0
        self.transport = Transport()
        config = uvicorn.Config(self._app, http=HeadLimits, interface="asgi3", lifespan="off", log_config=None)
        self.protocol = HeadLimits(config, ServerState(), {}, asyncio.get_running_loop(), **options)
        self.protocol.connection_made(self.transport)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.num_requests += 1
        more = True
        while more:
            message = await receive()
            self.num_body_bytes += len(message.get("body", b""))
            more = message.get("more_body", False)
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    def send(self, data: bytes) -> None:
        """In pieces, as a socket gives them, until the connection is closed."""
        for start in range(0, len(data), CHUNK):
            if not self.transport.closed:
                self.protocol.data_received(data[start : start + CHUNK])

    async def answered(self, count: int) -> None:
        async with asyncio.timeout(10):
            while self.transport.written.count(b"\r\n\r\nok") < count:
                await asyncio.sleep(0)


def run(work: Callable[[Connection], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        connection = Connection(**options)
        try:
            await work(connection)
        finally:
            connection.protocol.connection_lost(None)

    asyncio.run(main())


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * (4 * MAX_HEAD_BYTES),
        HEAD + b"X-Long: " + b"a" * (4 * MAX_HEAD_BYTES),
        HEAD + b"X-Many: 1\r\n" * MAX_HEAD_BYTES,
    ],
    ids=["url", "header", "headers"],
)
def test_a_head_without_end_is_refused(head: bytes) -> None:
    async def work(connection: Connection) -> None:
        connection.send(head)
        assert connection.transport.closed
        answer, _, body = connection.transport.written.partition(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert f"content-length: {len(body)}".encode() in answer
        assert json.loads(body)["error"]["code"] == "head_too_large"
        assert connection.num_requests == 0

    run(work)


def test_headers_behind_a_body_are_limited_too() -> None:
    async def work(connection: Connection) -> None:
        connection.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
        connection.send(b"X-Long: " + b"a" * (4 * MAX_HEAD_BYTES))
        assert connection.transport.closed

    run(work)


def test_a_body_is_no_head_however_long_it_is() -> None:
    async def work(connection: Connection) -> None:
        size = 8 * MAX_HEAD_BYTES
        for count in (1, 2):
            connection.send(HEAD + b"Content-Length: %d\r\n\r\n" % size + b"b" * size)
            await connection.answered(count)
        assert connection.num_body_bytes == 2 * size
        assert not connection.transport.closed

    run(work)


def test_a_head_that_takes_too_long_ends_its_connection() -> None:
    async def work(connection: Connection) -> None:
        connection.send(HEAD)
        async with asyncio.timeout(10):
            while not connection.transport.closed:
                await asyncio.sleep(0)

    run(work, head_timeout_s=0.0)


def test_line_breaks_before_a_head_do_not_keep_a_connection() -> None:
    async def work(connection: Connection) -> None:
        connection.send(HEAD + b"Content-Length: 0\r\n\r\n")
        await connection.answered(1)
        connection.protocol._head_timeout_s = 0.0
        connection.send(b"\r\n")
        async with asyncio.timeout(10):
            while not connection.transport.closed:
                await asyncio.sleep(0)

    run(work)


def test_a_slow_second_head_does_not_cut_the_answer_to_the_first() -> None:
    async def work(connection: Connection) -> None:
        connection.may_answer.clear()
        connection.send(HEAD + b"Content-Length: 0\r\n\r\n")
        connection.protocol._head_timeout_s = 0.0
        connection.send(HEAD)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not connection.transport.closed
        connection.may_answer.set()
        await connection.answered(1)
        async with asyncio.timeout(10):
            while not connection.transport.closed:  # but it ends the connection after that
                await asyncio.sleep(0)

    run(work)
