"""`run_server` in this process: what signals do before and after the engine has started, and that it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any, cast
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from vcore.config import ServerSettings, load_config
from vcore.engine.records import EngineStatus
from vcore.errors import ConfigError, EngineDeadError, ModelNotFoundError, PluginError
from vcore.server.lifecycle import run_server
from vcore.testing.scripted_engine import ScriptedEngine


class LivingEngine(ScriptedEngine):
    """One that is started and closed."""

    life: list[str]

    async def start(self) -> None:
        self.life = ["start"]
        self.may_step = asyncio.Event()
        self.may_step.set()
        await self.on_start()
        self.life.append("ready")

    async def on_start(self) -> None:
        """What happens on the way."""

    async def close(self) -> None:
        self.life.append("close")


def interrupt(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def run(engine: ScriptedEngine, announce: Any, **settings: Any) -> None:
    run_server(cast(Any, engine), ServerSettings(port=0, **settings), announce)


@pytest.fixture(autouse=True)
def _handlers_stay() -> Iterator[None]:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_an_idle_server(number: signal.Signals) -> None:
    engine, addresses = LivingEngine(), []

    def announce(address: str) -> None:
        addresses.append(address)
        assert engine.life == ["start", "ready"]
        interrupt(number)

    run(engine, announce)
    assert engine.life == ["start", "ready", "close"]
    [address] = addresses
    host, port = address.removeprefix("http://").split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


def test_of_two_servers_that_start_at_once_the_slower_one_says_that_it_cannot_listen() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))  # taken, but nobody listens: so two can have it

        class SlowEngine(LivingEngine):
            async def on_start(self) -> None:
                other.listen()

        engine = SlowEngine()
        settings = ServerSettings(port=other.getsockname()[1])
        with pytest.raises(ConfigError, match=r"cannot listen on .*Choose another --port"):
            run_server(cast(Any, engine), settings, pytest.fail)
        assert engine.life == ["start", "ready", "close"]


def test_as_many_connections_as_the_system_gives() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = min(256, before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, before[1]))
    try:
        run(LivingEngine(), lambda address: interrupt())
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(before[1], 65536)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_model_is_loaded_ends_the_attempt(number: signal.Signals) -> None:
    class SlowEngine(LivingEngine):
        async def on_start(self) -> None:
            interrupt(number)
            await asyncio.Event().wait()

    engine = SlowEngine()
    with pytest.raises(KeyboardInterrupt):
        run(engine, pytest.fail)
    assert engine.life == ["start", "close"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_the_start_and_the_first_request_ends_the_server(number: signal.Signals) -> None:
    class ReadyEngine(LivingEngine):
        def add_listener(self, listener: Any) -> None:
            super().add_listener(listener)
            if len(self.life) == 2:
                self.life.append("signal")
                interrupt(number)

    engine = ReadyEngine()
    run(engine, lambda _: None)
    assert engine.life == ["start", "ready", "signal", "close"]


def test_a_signal_that_is_too_late_to_end_the_start_ends_the_server() -> None:
    class JustReady(LivingEngine):
        async def on_start(self) -> None:
            interrupt()

    engine = JustReady()
    run(engine, lambda _: None)
    assert engine.life == ["start", "ready", "close"]


def test_an_engine_that_cannot_be_started_is_closed_and_told() -> None:
    class NoEngine(LivingEngine):
        async def on_start(self) -> None:
            raise ModelNotFoundError("no such model")

    engine = NoEngine()
    with pytest.raises(ModelNotFoundError, match="no such model"):
        run(engine, pytest.fail)
    assert engine.life == ["start", "close"]


def test_what_the_application_refuses_closes_the_engine() -> None:
    class NoParser(LivingEngine):
        async def on_start(self) -> None:  # as if a parser that was there before the start were gone
            self.config = load_config(self.config, {"chat.tool_parser": "none-such"})

    engine = NoParser()
    with pytest.raises(PluginError, match="none-such"):
        run(engine, pytest.fail)
    assert engine.life == ["start", "ready", "close"]


def test_a_wrong_setting_is_told_before_anything_is_started(tmp_path: Any) -> None:
    engine = LivingEngine()
    with pytest.raises(ConfigError, match=r"mine\.jinja"):
        run(engine, pytest.fail, chat_template=tmp_path / "mine.jinja")
    assert not hasattr(engine, "life")


# The death of the engine


class DyingEngine(LivingEngine):
    """One that dies, and is given up, on demand."""

    def die(self) -> None:
        status = EngineStatus(state="dead", reason="it was killed by SIGKILL; the last it said:\n  out of memory")
        self.status.state, self.status.reason = status.state, status.reason
        for listener in self.listeners:
            listener.on_engine(status)


def test_a_dead_engine_ends_the_server_once_open_requests_have_their_answers() -> None:
    engine, answers = DyingEngine(), []
    engine.failures = {2: EngineDeadError("the engine ended while the request ran")}

    def announce(address: str) -> None:
        url = address.removeprefix("http://")
        threads.append(threading.Thread(target=client, args=(url, asyncio.get_running_loop())))
        threads[-1].start()

    def client(url: str, loop: asyncio.AbstractEventLoop) -> None:
        """A request that runs when the engine dies, and a look at its health after that."""
        stream, health = http.client.HTTPConnection(url, timeout=30), http.client.HTTPConnection(url, timeout=30)
        health.request("GET", "/version")
        health.getresponse().read()  # connected
        loop.call_soon_threadsafe(engine.may_step.clear)
        body = json.dumps({"prompt": "hi", "max_tokens": 50}).encode()
        stream.request("POST", "/v1/completions", body, {"content-type": "application/json"})

        def end() -> None:
            if not engine.open_ids:
                loop.call_soon(end)
                return
            engine.die()
            engine.may_step.set()

        health.request("GET", "/health")
        answers.append(health.getresponse().status)
        health.close()
        loop.call_soon_threadsafe(end)
        response = stream.getresponse()
        answers.append((response.status, json.loads(response.read())["error"]["message"]))

    threads: list[threading.Thread] = []
    with pytest.raises(EngineDeadError) as caught:
        run(engine, announce)
    threads[0].join(30)
    assert answers == [200, (503, "the engine ended while the request ran")]
    expected = "the engine is dead and is not started again: it was killed by SIGKILL; the last it said: out of memory"
    assert str(caught.value) == expected
    assert engine.life == ["start", "ready", "close"]


def test_an_engine_that_died_before_the_server_listened_ends_it() -> None:
    class ShortLived(DyingEngine):
        async def on_start(self) -> None:
            self.die()

    with pytest.raises(EngineDeadError, match="SIGKILL"):
        run(ShortLived(), lambda _: None)


def test_a_server_that_is_to_stay_answers_503() -> None:
    engine, answers = DyingEngine(), []

    def announce(address: str) -> None:
        engine.die()
        asyncio.get_running_loop().run_in_executor(None, look, address)

    def look(address: str) -> None:
        with pytest.raises(HTTPError) as caught:
            urlopen(f"{address}/health", timeout=30)
        with caught.value as answer:
            answers.append((answer.status, json.loads(answer.read())["status"]))
        interrupt()

    run(engine, announce, exit_when_dead=False)
    assert answers == [(503, "dead")]


def test_connections_are_counted_and_limited() -> None:
    engine, found = LivingEngine(), []

    def announce(address: str) -> None:
        asyncio.get_running_loop().run_in_executor(None, look, address)

    def look(address: str) -> None:
        host, port = address.removeprefix("http://").split(":")
        with contextlib.ExitStack() as idle:
            for _ in range(20):
                idle.enter_context(socket.create_connection((host, int(port))))
            with urlopen(f"{address}/metrics", timeout=30) as answer:
                found.append(answer.read().decode())
        interrupt()

    run(engine, announce, max_connections=4)
    [text] = found
    assert "\nvcore:http_connections 4.0\n" in text
    assert "\nvcore:http_connections_displaced_total 17.0\n" in text
    assert "\nvcore:http_connections_refused_total 0.0\n" in text


def test_clients_cannot_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[bytes] = []

    def announce(address: str) -> None:
        asyncio.get_running_loop().run_in_executor(None, send_garbage, address)

    def send_garbage(address: str) -> None:
        host, port = address.removeprefix("http://").split(":")
        for _ in range(30):
            with socket.create_connection((host, int(port)), timeout=30) as client:
                client.sendall(b"no HTTP\r\n\r\n")
                answers.append(client.recv(12))
        interrupt()

    run(LivingEngine(), announce)
    assert answers == [b"HTTP/1.1 400"] * 30
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 5
