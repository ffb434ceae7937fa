"""How many clients may be connected: who makes room for whom, over real sockets, and who is refused."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from vcore.server.connection_limits import ConnectionLimits
from vcore.server.http_connection import HttpConnection

GET = b"GET / HTTP/1.1\r\nHost: server\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: server\r\nContent-Length: 4\r\n\r\n"


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return int(head.split()[1]), await self.reader.readexactly(length)

    async def ended(self) -> bool:
        """Whether the server has closed it; what is said in that case is in `answer`."""
        try:
            return await self.reader.read() == b""
        except ConnectionResetError:
            return True


class Server:
    """Three places, and an application that answers ``ok`` when it may."""

    def __init__(self, max_connections: int = 3) -> None:
        self.limits = ConnectionLimits(max_connections)
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.num_begun = 0
        self.address: tuple[str, int] = ("", 0)
        self.clients: list[Client] = []

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] == "http.disconnect":
            return
        self.num_begun += 1
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def connect(self, data: bytes = b"") -> Client:
        """A client that has a place, or was refused: the server knows it."""
        before = self.num_seen
        client = Client(*await asyncio.open_connection(*self.address))
        self.clients.append(client)
        await until(lambda: self.num_seen > before)
        client.send(data)
        return client

    num_seen = 0

    def make(self, *args: Any) -> HttpConnection:
        connection = HttpConnection(*args, limits=self.limits)
        made = connection.connection_made

        def connection_made(transport: Any) -> None:
            made(transport)
            self.num_seen += 1

        connection.connection_made = connection_made  # type: ignore[method-assign]
        return connection


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


@asynccontextmanager
async def served(server: Server) -> AsyncIterator[Server]:
    loop = asyncio.get_running_loop()
    config = uvicorn.Config(server.app, http=HttpConnection, interface="asgi3", lifespan="off", log_config=None)
    listener = await loop.create_server(partial(server.make, config, ServerState(), {}, loop), "127.0.0.1", 0)
    server.address = listener.sockets[0].getsockname()
    try:
        yield server
    finally:
        for client in server.clients:
            client.writer.close()
        listener.close()
        await until(lambda: server.limits.num_open == 0)


def run(work: Callable[[Server], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30), served(Server()) as server:
            await work(server)

    asyncio.run(main())


def test_thousands_that_send_nothing_keep_nobody_out() -> None:
    async def work(server: Server) -> None:
        for _ in range(200):
            await server.connect()
            assert server.limits.num_open <= 3
        client = await server.connect(GET)
        assert await client.answer() == (200, b"ok")
        assert [await one.ended() for one in server.clients[:198]] == [True] * 198

    run(work)


@pytest.mark.parametrize("beginning", [b"", GET[:20], POST, POST + b"ab"], ids=["nothing", "head", "no body", "body"])
def test_whoever_has_sent_nothing_for_longest_makes_room(beginning: bytes) -> None:
    async def work(server: Server) -> None:
        first, second, third = [await server.connect(beginning) for _ in range(3)]
        third.send(GET if not beginning else b"")
        second.send(b"x" if beginning else GET)  # the newest byte, whatever it means
        await until(lambda: server.limits.num_open == 3)
        if not beginning:
            await second.answer()
            await third.answer()
        fourth = await server.connect(GET)
        assert await fourth.answer() == (200, b"ok")
        assert await first.ended()
        assert server.limits.num_open == 3

    run(work)


def test_a_connection_that_is_kept_for_later_makes_room() -> None:
    async def work(server: Server) -> None:
        kept = await server.connect(GET)
        assert (await kept.answer())[0] == 200
        server.may_answer.clear()
        busy = [await server.connect(GET) for _ in range(2)]
        await until(lambda: server.num_begun == 3)
        newcomer = await server.connect(GET)
        await until(lambda: server.num_begun == 4)
        server.may_answer.set()
        assert [await one.answer() for one in (*busy, newcomer)] == [(200, b"ok")] * 3
        assert await kept.ended()

    run(work)


def test_beside_answers_a_newcomer_is_refused_and_told_so(caplog: pytest.LogCaptureFixture) -> None:
    async def work(server: Server) -> None:
        server.may_answer.clear()
        busy = [await server.connect(GET) for _ in range(3)]
        await until(lambda: server.num_begun == 3)
        refused = await server.connect(POST)
        again = await server.connect(GET)
        for client in (refused, again):
            status, body = await client.answer()
            assert (status, json.loads(body)["error"]["code"]) == (503, "too_many_connections")
            assert await client.ended()
            client.writer.close()
        assert server.num_begun == 3
        server.may_answer.set()
        assert [await one.answer() for one in busy] == [(200, b"ok")] * 3
        busy[0].send(GET)
        assert await busy[0].answer() == (200, b"ok")

    with caplog.at_level(logging.WARNING, logger="vcore"):
        run(work)
    assert len([one for one in caplog.messages if "max_connections" in one]) == 1


def test_a_pipelined_request_that_is_not_whole_does_not_give_up_the_answer_before_it() -> None:
    async def work(server: Server) -> None:
        server.may_answer.clear()
        pipelining = await server.connect(GET + POST + b"ab")
        busy = [await server.connect(GET) for _ in range(2)]
        await until(lambda: server.num_begun == 3)
        assert (await (await server.connect(GET)).answer())[0] == 503
        server.may_answer.set()
        assert [await one.answer() for one in (pipelining, *busy)] == [(200, b"ok")] * 3
        pipelining.send(b"cd")
        assert await pipelining.answer() == (200, b"ok")

    run(work)


class Place:
    """A connection without a socket."""

    def __init__(self) -> None:
        self.dropped = False

    def drop(self) -> None:
        self.dropped = True


def test_few_of_those_that_are_refused_stay_to_read_why() -> None:
    limits = ConnectionLimits(1)
    busy = Place()
    assert limits.enter(busy)
    limits.work(busy)
    places = [Place() for _ in range(100)]
    assert not any(map(limits.enter, places))
    assert sum(map(limits.linger, places)) == 64
    assert (limits.num_open, limits.num_refused, limits.num_displaced) == (1, 100, 0)
    limits.leave(places[0])
    assert limits.linger(Place())


def test_refusals_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    times = iter([0.0, 1.0, 59.0, 60.0, 61.0])
    limits, busy = ConnectionLimits(1, clock=lambda: next(times)), Place()
    limits.enter(busy)
    limits.work(busy)
    assert not any(limits.enter(Place()) for _ in range(5))
    assert len(caplog.messages) == 2


def test_who_has_left_gets_no_place_back() -> None:
    limits, first = ConnectionLimits(1), Place()
    limits.enter(first)
    second = Place()
    assert limits.enter(second)
    assert first.dropped
    limits.wait(first)  # its last bytes arrive late
    assert limits.enter(Place())
    assert (second.dropped, limits.num_open, limits.num_displaced, limits.num_refused) == (True, 1, 2, 0)
