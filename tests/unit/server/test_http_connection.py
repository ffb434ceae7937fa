"""Clients that do not read, over real sockets with small buffers, and what is no HTTP."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from vcore.server import http_connection, limited_connection
from vcore.server.client_warnings import ClientWarnings
from vcore.server.head_limits import MAX_HEAD_BYTES
from vcore.server.http_connection import HttpConnection

REQUEST = b"GET / HTTP/1.1\r\nHost: server\r\n\r\n"
PIECE = b"x" * 16_384
ENOUGH = 600
"""Pieces that no system keeps for a client that does not read."""


class Sender:
    """An application that sends until its client is gone, or all is sent."""

    def __init__(self) -> None:
        self.num_sent = 0
        self.left = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        watch = asyncio.ensure_future(receive())
        while self.num_sent < ENOUGH and not watch.done():
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
            self.num_sent += 1
            await asyncio.sleep(0)
        if watch.done():
            self.left.set()
        watch.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[socket.socket]:
    """A connection to `app` that reads nothing by itself."""
    config = uvicorn.Config(app, http=HttpConnection, interface="asgi3", lifespan="off", log_config=None)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: HttpConnection(config, ServerState(), {}, loop), "127.0.0.1", 0)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    try:
        await loop.sock_connect(client, server.sockets[0].getsockname())
        yield client
    finally:
        client.close()
        server.close()


def test_a_client_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "STALL_TIMEOUT_S", 0.05)

    async def main() -> None:
        app = Sender()
        async with served(app) as client, asyncio.timeout(30):
            await asyncio.get_running_loop().sock_sendall(client, REQUEST)
            await app.left.wait()
        assert app.num_sent < ENOUGH

    asyncio.run(main())


def test_a_client_that_reads_at_last_gets_everything() -> None:
    async def main() -> None:
        app, loop = Sender(), asyncio.get_running_loop()
        async with served(app) as client, asyncio.timeout(30):
            await loop.sock_sendall(client, REQUEST)
            before = -1
            while app.num_sent > before:  # until it waits for the client
                before = app.num_sent
                for _ in range(100):
                    await asyncio.sleep(0)
            assert app.num_sent < ENOUGH
            data = bytearray()
            while not data.endswith(b"\r\n0\r\n\r\n"):
                data += await loop.sock_recv(client, 1 << 20)
        assert data.count(b"x") == ENOUGH * len(PIECE)
        assert not app.left.is_set()

    asyncio.run(main())


class Transport(asyncio.Transport):
    """Has bytes that nobody takes, or fewer each time it is asked."""

    def __init__(self, *num_unsent: int) -> None:
        super().__init__()
        self._num_unsent = list(num_unsent)
        self.written = b""
        self.ends: list[str] = []

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return self._num_unsent.pop(0) if len(self._num_unsent) > 1 else self._num_unsent[0]

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return bool(self.ends)

    def close(self) -> None:
        self.ends.append("close")

    def abort(self) -> None:
        self.ends.append("abort")


def connection(*num_unsent: int) -> tuple[HttpConnection, Transport]:
    config = uvicorn.Config(Sender(), http=HttpConnection, interface="asgi3", lifespan="off", log_config=None)
    made, transport = HttpConnection(config, ServerState(), {}, asyncio.get_running_loop()), Transport(*num_unsent)
    made.connection_made(transport)
    return made, transport


def test_whoever_reads_slowly_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "STALL_TIMEOUT_S", 0.0)

    looks: list[list[str]] = []

    async def main() -> None:
        made, transport = connection(50, 40, 40, 39, 39, 39)
        check = made._check_progress
        monkeypatch.setattr(made, "_check_progress", lambda: (check(), looks.append(list(transport.ends))))
        made.pause_writing()
        async with asyncio.timeout(10):
            while not transport.ends:
                await asyncio.sleep(0)
        made.connection_lost(None)

    asyncio.run(main())
    assert looks == [[], [], ["abort"]]


@pytest.mark.parametrize(("num_unsent", "end"), [(0, "close"), (5, "abort")])
def test_an_idle_connection_is_not_kept_for_an_answer_that_nobody_reads(num_unsent: int, end: str) -> None:
    async def main() -> None:
        made, transport = connection(num_unsent)
        made.timeout_keep_alive_handler()
        assert transport.ends == [end]
        made.connection_lost(None)

    asyncio.run(main())


def test_a_connection_that_is_lost_does_not_wait_for_the_collector_of_garbage() -> None:
    async def main() -> None:
        made, _ = connection()
        made.data_received(REQUEST[:10])
        made.connection_lost(None)
        lost = weakref.ref(made)
        del made
        assert lost() is None

    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


def test_what_is_no_http_is_told_in_the_shape_of_all_errors() -> None:
    async def main() -> None:
        made, transport = connection()
        made.data_received(b"\x16\x03\x01\x02\x00 hello\r\n\r\n")
        head, _, body = transport.written.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert f"content-length: {len(body)}".encode() in head
        assert json.loads(body)["error"]["code"] == "invalid_http"
        assert transport.ends == ["close"]
        made.connection_lost(None)

    asyncio.run(main())


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody lingers."""
    monkeypatch.setattr(limited_connection, "_LINGER_S", 0.0)


CHUNKED = b"POST /v1/x HTTP/1.1\r\nHost: server\r\nTransfer-Encoding: chunked\r\n\r\n"
BROKEN = b"zz\r\nhello\r\n"


class Reader:
    """An application that answers once it may; one that reads a body after that, another begins before."""

    def __init__(self, *, reads: bool = True) -> None:
        self.reads = reads
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.heard: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        more = self.reads
        while more:
            message = await receive()
            self.heard.append(message["type"])
            more = message.get("more_body", False)
        begin = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
        if not self.reads:
            await send(begin)
        await self.may_answer.wait()
        if self.reads:
            await send(begin)
        await send({"type": "http.response.body", "body": b"ok"})


def talk(app: Reader, *pieces: bytes, waits_for_end: bool = True) -> tuple[bytes, list[str]]:
    """What is answered to `pieces`, and how the connection ends; the application works in between."""

    async def main() -> tuple[bytes, list[str]]:
        config = uvicorn.Config(app, http=HttpConnection, interface="asgi3", lifespan="off", log_config=None)
        made, transport = HttpConnection(config, ServerState(), {}, asyncio.get_running_loop()), Transport(0)
        made.connection_made(transport)
        for piece in pieces:
            if not transport.ends:
                made.data_received(piece)
            await settle()
        app.may_answer.set()
        async with asyncio.timeout(10):
            while not transport.ends and waits_for_end:
                await asyncio.sleep(0)
            await settle()
        ends = [*transport.ends]
        made.connection_lost(None)
        await settle()
        return transport.written, ends

    async def settle() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    return asyncio.run(main())


def code(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in head
    assert f"content-length: {len(body)}".encode() in head
    return str(json.loads(body)["error"]["code"])


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("pieces", [(CHUNKED + BROKEN,), (CHUNKED, b"2\r\nab\r\n", BROKEN)], ids=["at once", "later"])
def test_a_broken_chunk_is_refused_and_its_application_sees_its_client_leave(
    pieces: tuple[bytes, ...], caplog: pytest.LogCaptureFixture
) -> None:
    app = Reader()
    answer, ends = talk(app, *pieces)
    assert code(answer) == "invalid_http"
    assert ends == ["close"]
    assert app.heard[-1] == "http.disconnect"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.usefixtures("hasty")
def test_a_broken_chunk_that_is_longer_than_a_head_may_be_is_refused_once() -> None:
    answer, ends = talk(Reader(), CHUNKED, b"z" * (2 * MAX_HEAD_BYTES))
    assert code(answer) == "invalid_http"
    assert ends == ["close"]


@pytest.mark.parametrize("whole", [True, False])
def test_an_answer_that_was_begun_is_not_broken_into(whole: bool) -> None:
    app = Reader(reads=False)
    if not whole:
        app.may_answer.clear()
    answer, ends = talk(app, CHUNKED, BROKEN)
    assert (answer.count(b"HTTP/1.1"), ends) == (1, ["close"])
    assert answer.endswith(b"\r\n\r\nok")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("wrong", [CHUNKED + BROKEN, b"no HTTP\r\n\r\n"], ids=["chunk", "head"])
@pytest.mark.parametrize("num_before", [1, 2])
def test_what_is_wrong_behind_a_request_is_refused_after_its_answer(wrong: bytes, num_before: int) -> None:
    app = Reader()
    app.may_answer.clear()
    answer, ends = talk(app, REQUEST * num_before, wrong, b"more of it")
    *whole, last = answer.split(b"\r\n\r\nok")
    assert [one.startswith(b"HTTP/1.1 200 ") for one in whole] == [True] * num_before
    assert code(last) == "invalid_http"
    assert ends == ["close"]
    assert app.heard == ["http.request"] * num_before, "the broken request never ran"


def test_a_body_that_is_longer_than_was_declared_costs_no_answer() -> None:
    app = Reader()
    app.may_answer.clear()
    declared = b"POST /v1/x HTTP/1.1\r\nHost: server\r\nContent-Length: 5\r\n\r\n"
    answer, _ = talk(app, declared + b"hello and more")
    first, last = answer.split(b"\r\n\r\nok")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert code(last) == "invalid_http"


def test_whoever_goes_on_with_what_is_wrong_is_cut_off() -> None:
    app = Reader()
    app.may_answer.clear()
    answer, ends = talk(app, REQUEST, b"no HTTP\r\n\r\n", *[b"x" * 16_384] * 5)
    assert (b"HTTP/1.1 400" in answer, ends) == (False, ["close"])


def test_what_follows_a_whole_request_is_refused_after_its_answer_alone() -> None:
    answer, ends = talk(Reader(), CHUNKED + b"0\r\n\r\n", b"no HTTP\r\n\r\n")
    first, rest = answer.split(b"\r\n\r\nok")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert code(rest) == "invalid_http"
    assert ends == ["close"]


def test_a_head_whose_path_is_none_is_refused() -> None:
    answer, _ = talk(Reader(), b"GET /\xff HTTP/1.1\r\nHost: server\r\n\r\n")
    assert code(answer) == "invalid_http"


def test_warnings_of_all_connections_are_limited_together(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        config = uvicorn.Config(Reader(), http=HttpConnection, interface="asgi3", lifespan="off", log_config=None)
        loop = asyncio.get_running_loop()
        warnings = ClientWarnings(logging.getLogger("uvicorn.error"), lambda seconds, end: ends.append(end))
        for _ in range(100):
            made = HttpConnection(config, ServerState(), {}, loop, warnings=warnings)
            made.connection_made(Transport(0))
            made.data_received(b"no HTTP\r\n\r\n")
            made.connection_lost(None)

    ends: list[Any] = []
    asyncio.run(main())
    assert len(caplog.messages) == 5
    [end] = ends
    end()
    assert caplog.messages[5:] == ["95 more like these within 60 s; the last: Invalid HTTP request received."]


def test_a_client_that_offers_another_protocol_is_served_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    upgrade = b"GET / HTTP/1.1\r\nHost: server\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    answer, ends = talk(Reader(), upgrade, waits_for_end=False)
    assert answer.endswith(b"ok")
    assert (ends, caplog.messages) == ([], [])


def test_a_client_that_sends_all_before_it_looks_gets_the_refusal_of_its_broken_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limited_connection, "_LINGER_S", 30.0)

    async def main() -> bytes:
        loop, answer = asyncio.get_running_loop(), b""
        async with served(Reader()) as client, asyncio.timeout(30):
            await loop.sock_sendall(client, CHUNKED + BROKEN)
            for _ in range(200):
                await loop.sock_sendall(client, PIECE)
            while piece := await loop.sock_recv(client, 1 << 16):
                answer += piece
        return answer

    assert code(asyncio.run(main())) == "invalid_http"
