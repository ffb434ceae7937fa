"""`run_server` in this process: what signals do before and after the engine has started, and that it is closed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest

from vcore.errors import ConfigError, ModelNotFoundError
from vcore.server import ServerSettings
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


def test_an_engine_that_cannot_be_started_is_closed_and_told() -> None:
    class NoEngine(LivingEngine):
        async def on_start(self) -> None:
            raise ModelNotFoundError("no such model")

    engine = NoEngine()
    with pytest.raises(ModelNotFoundError, match="no such model"):
        run(engine, pytest.fail)
    assert engine.life == ["start", "close"]


def test_what_the_application_refuses_closes_the_engine(tmp_path: Any) -> None:
    engine = LivingEngine()
    with pytest.raises(ConfigError, match=r"mine\.jinja"):
        run(engine, pytest.fail, chat_template=tmp_path / "mine.jinja")
    assert engine.life == ["start", "ready", "close"]
