"""Requests that are sent ahead, over real sockets: they have their turn, and hide no client that leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from vcore.server.http_connection import HttpConnection
from vcore.server.lifecycle import _loop_factory
from vcore.server.pipelined_connection import MAX_AHEAD

GET = b"GET /%d HTTP/1.1\r\nHost: server\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: server\r\nContent-Length: 100000\r\n\r\n"


class Server:
    """An application that answers with its path when it may, or else notes whose client has left."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        """The client."""

    begun: list[str]
    left: list[str]
    may_answer: dict[str, asyncio.Event]

    async def answer(self) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        return await self.reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))

    async def until_begun(self, path: str) -> None:
        while path not in self.begun:
            await asyncio.sleep(0)

    async def until_left(self, path: str) -> None:
        while path not in self.left:
            await asyncio.sleep(0)


@asynccontextmanager
async def served(answers_at_once: bool) -> AsyncIterator[Server]:
    begun: list[str] = []
    left: list[str] = []
    may_answer: dict[str, asyncio.Event] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        begun.append(path)
        await receive()
        gone = asyncio.ensure_future(receive())
        answered = asyncio.ensure_future(may_answer.setdefault(path, asyncio.Event()).wait())
        if not answers_at_once:
            await asyncio.wait({gone, answered}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            left.append(path)
        gone.cancel()
        answered.cancel()
        body = path.encode()
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})

    loop = asyncio.get_running_loop()
    config = uvicorn.Config(app, http=HttpConnection, interface="asgi3", lifespan="off", log_config=None)
    listener = await loop.create_server(partial(HttpConnection, config, ServerState(), {}, loop), "127.0.0.1", 0)
    server = Server(*await asyncio.open_connection(*listener.sockets[0].getsockname()))
    server.begun, server.left, server.may_answer = begun, left, may_answer
    try:
        yield server
    finally:
        server.writer.close()
        listener.close()


@pytest.fixture(params=[None, _loop_factory()], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[..., None]:
    def run(work: Callable[[Server], Awaitable[None]], *, answers_at_once: bool = False) -> None:
        async def main() -> None:
            async with asyncio.timeout(30), served(answers_at_once) as server:
                await work(server)

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())

    return run


def test_requests_sent_ahead_are_answered_in_their_order(run: Callable[..., None]) -> None:
    async def work(server: Server) -> None:
        server.writer.write(b"".join(GET % number for number in range(MAX_AHEAD + 1)))
        assert [await server.answer() for _ in range(MAX_AHEAD + 1)] == [b"/%d" % n for n in range(MAX_AHEAD + 1)]

    run(work, answers_at_once=True)


def test_a_client_that_leaves_is_seen_behind_what_it_sent_ahead(run: Callable[..., None]) -> None:
    async def work(server: Server) -> None:
        server.writer.write(GET % 0)
        await server.until_begun("/0")
        server.writer.write(GET % 1)
        server.writer.close()
        await server.until_left("/0")
        assert server.begun == ["/0"]

    run(work)


def test_it_is_seen_by_the_request_whose_turn_it_is(run: Callable[..., None]) -> None:
    async def work(server: Server) -> None:
        server.writer.write(GET % 0 + GET % 1 + GET % 2)
        await server.until_begun("/0")
        server.may_answer["/0"].set()
        assert await server.answer() == b"/0"
        await server.until_begun("/1")
        server.writer.close()
        await server.until_left("/1")
        assert (server.begun, server.left) == (["/0", "/1"], ["/1"])

    run(work)


@pytest.mark.parametrize("ahead", [(GET % 1) * (MAX_AHEAD + 1), POST + b"x" * 100_000], ids=["requests", "body"])
def test_who_sends_too_much_ahead_is_cut_off(run: Callable[..., None], ahead: bytes) -> None:
    async def work(server: Server) -> None:
        server.writer.write(GET % 0)
        await server.until_begun("/0")
        server.writer.write(ahead)
        await server.until_left("/0")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await server.answer()

    run(work)
