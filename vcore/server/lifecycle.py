"""`run_server`: a server from its start to its end: checks first, then the engine, then clients, then the farewell."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from vcore.server.app import create_app
from vcore.server.connection_limits import ConnectionLimits
from vcore.server.ending import Ending
from vcore.server.http_server import HttpServer
from vcore.server.listener import address, bind, connections_allowed, listen
from vcore.server.preflight import check_settings
from vcore.server.signals import Signals

if TYPE_CHECKING:
    from vcore.config import ServerSettings
    from vcore.engine.async_llm import AsyncLLM

__all__ = ["run_server"]

Announce = Callable[[str], None]
"""Told of the server's address once it answers."""


def run_server(engine: AsyncLLM, settings: ServerSettings, announce: Announce) -> None:
    """Start `engine`, serve it until a signal, and close it.

    Args:
        engine: not started.
        settings: how to serve it.
        announce: told the server's address.

    Raises:
        ConfigError: the address cannot be had, or `check_settings` finds something wrong; nothing was started.
        KeyboardInterrupt: a signal came before the engine had started.
        VcoreError: the engine could not be started.
        EngineDeadError: it was, but died and is not started again.
    """
    check_settings(settings)
    limits = ConnectionLimits(connections_allowed(settings.max_connections))
    with contextlib.closing(bind(settings)) as listener, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_run(engine, settings, limits, listener, announce))


async def _run(
    engine: AsyncLLM, settings: ServerSettings, limits: ConnectionLimits, listener: socket.socket, announce: Announce
) -> None:
    async with _started(engine) as signals:
        app = create_app(engine, settings)
        app.state.observability.http.connections = limits
        server = HttpServer(app, settings, limits, on_started=lambda: announce(address(listener, settings)))
        ending = Ending(server, app.state.context.admission, settings.drain_s)
        if settings.exit_when_dead:
            engine.add_listener(ending)
            ending.on_engine(engine.health())
        listen(listener, settings)
        gc.collect()
        gc.freeze()  # what was loaded stays: the collector need not walk through it while streams wait
        signals.pass_to(ending.on_signal)
        await server.serve(sockets=[listener])
        ending.check_engine()


@asynccontextmanager
async def _started(engine: AsyncLLM) -> AsyncIterator[Signals]:
    """The engine runs in the block. A signal before that ends the attempt; in it, they go where the block says."""
    starting = asyncio.ensure_future(engine.start())
    try:
        with Signals(starting).taken() as signals:
            try:
                await starting
            except asyncio.CancelledError:
                raise KeyboardInterrupt from None
            yield signals
    finally:
        await engine.close()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where there is one: its event loop is the faster one."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
