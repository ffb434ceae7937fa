"""A server's life: its signals, the death of its engine, and how it ends.

first signal    nothing more is let in, listening ends, open requests go on for `drain_s` seconds
after that      what is still open ends with an error that says so
second signal   the same at once
engine dead     it was given up: open requests have their errors, and once these are sent the process fails
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import uvicorn

from vcore.errors import EngineDeadError
from vcore.server.app import create_app
from vcore.server.connection_limits import ConnectionLimits
from vcore.server.errors import ApiError
from vcore.server.http_connection import HttpConnection
from vcore.server.listener import BACKLOG, address, bind, check_tls, connections_allowed, listen

if TYPE_CHECKING:
    from fastapi import FastAPI

    from vcore.config import ServerSettings
    from vcore.engine.async_llm import AsyncLLM
    from vcore.engine.records import EngineStatus, RequestRecord, StepRecord

__all__ = ["run_server"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE_S = 10.0
"""After the drain: for answers that say so to go out."""

_STARTUP_FAILED = 3
"""uvicorn's exit status for it."""

Announce = Callable[[str], None]
"""Told of the server's address once it answers."""


def run_server(engine: AsyncLLM, settings: ServerSettings, announce: Announce) -> None:
    """Start `engine`, serve it until a signal, and close it.

    Args:
        engine: not started.
        settings: how to serve it.
        announce: told the server's address.

    Raises:
        ConfigError: the address cannot be had, a file that `settings` names cannot be read, or a variable is not set;
            nothing was started.
        KeyboardInterrupt: a signal came before the engine had started.
        VcoreError: the engine could not be started.
        EngineDeadError: it was, but died and is not started again.
    """
    settings.filled()  # raises before a model is loaded
    check_tls(settings)
    limits = ConnectionLimits(connections_allowed(settings.max_connections))
    with contextlib.closing(bind(settings)) as listener, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_run(engine, settings, limits, listener, announce))


async def _run(
    engine: AsyncLLM, settings: ServerSettings, limits: ConnectionLimits, listener: socket.socket, announce: Announce
) -> None:
    async with _started(engine) as signals:
        app = create_app(engine, settings)
        app.state.observability.http.connections = limits
        make_connection = partial(HttpConnection, limits=limits, head_timeout_s=settings.head_timeout_s)
        server = _Server(
            _uvicorn_config(app, settings),
            make_connection,
            handshake_timeout_s=settings.head_timeout_s,
            on_started=lambda: announce(address(listener, settings)),
        )
        ending = _Ending(server, app, settings.drain_s)
        if settings.exit_when_dead:
            engine.add_listener(ending)
            ending.on_engine(engine.health())
        listen(listener, settings)
        gc.collect()
        gc.freeze()  # what was loaded stays: the collector need not walk through it while streams wait
        signals.pass_to(ending.on_signal)
        await server.serve(sockets=[listener])
        ending.check_engine()


class _Signals:
    """Where signals go: at first they end the start; later they go to the server, also those in between."""

    def __init__(self, starting: asyncio.Future[None]) -> None:
        self._starting = starting
        self._handler: Callable[[], object] | None = None
        self._num_late = 0
        """Those that came too late to end the start, and before there was a handler."""

    def __call__(self) -> None:
        """Take one."""
        if self._handler is not None:
            self._handler()
        elif not self._starting.cancel():
            self._num_late += 1

    def pass_to(self, handler: Callable[[], object]) -> None:
        """Call `handler` for each from now on, and for those in between."""
        self._handler = handler
        for _ in range(self._num_late):
            handler()


@asynccontextmanager
async def _started(engine: AsyncLLM) -> AsyncIterator[_Signals]:
    """The engine runs in the block. A signal before that ends the attempt; in it, they go where the block says."""
    starting = asyncio.ensure_future(engine.start())
    signals = _Signals(starting)
    try:
        with _on_signals(signals):
            try:
                await starting
            except asyncio.CancelledError:
                raise KeyboardInterrupt from None
            yield signals
    finally:
        await engine.close()


@contextmanager
def _on_signals(handler: Callable[[], object]) -> Iterator[None]:
    """Call `handler` in the event loop, in the place of whatever signals did."""
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


class _Server(uvicorn.Server):
    """Leaves signals to `_Ending`, makes connections that have limits, and says when it listens."""

    def __init__(
        self,
        config: uvicorn.Config,
        make_connection: Callable[..., asyncio.Protocol],
        *,
        handshake_timeout_s: float,
        on_started: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._make_connection = make_connection
        self._handshake_timeout_s = handshake_timeout_s
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """In the place of uvicorn's, which can limit neither connections nor the time that a TLS handshake takes."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise SystemExit(_STARTUP_FAILED)
        loop = asyncio.get_running_loop()
        make = partial(self._make_connection, self.config, self.server_state, self.lifespan.state, loop)
        timeout = None if self.config.ssl is None else self._handshake_timeout_s
        self.servers = [
            await loop.create_server(
                make, sock=one, ssl=self.config.ssl, ssl_handshake_timeout=timeout, backlog=self.config.backlog
            )
            for one in sockets or ()
        ]
        self.started = True
        self._on_started()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.force_exit:  # then uvicorn leaves it out, but what was opened is to be closed
            await self.lifespan.shutdown()

    def drop_connections(self) -> None:
        """Close every connection, whatever it was doing."""
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()


class _Ending:
    """What signals, and the end of the engine, do to a server. It is an `EngineListener`."""

    def __init__(self, server: _Server, app: FastAPI, drain_s: float) -> None:
        self._server = server
        self._admission = app.state.context.admission
        self._drain_s = drain_s
        self._num_signals = 0
        self._dead: str | None = None

    def on_step(self, record: StepRecord) -> None:
        """All is well."""

    def on_finished(self, record: RequestRecord) -> None:
        """All is well."""

    def on_engine(self, status: EngineStatus) -> None:
        """End if the engine was given up; nothing is let in by then, and what was open is told why."""
        if status.state == "dead" and self._dead is None:
            self._dead = status.reason or "the cause is not known"
            self._server.should_exit = True

    def check_engine(self) -> None:
        """Raise if that is why it ended.

        Raises:
            EngineDeadError: the message has the cause in one line, for logs that are read by the line.
        """
        if self._dead is not None:
            cause = " ".join(line.strip() for line in self._dead.splitlines())
            raise EngineDeadError(f"the engine is dead and is not started again: {cause}")

    def on_signal(self) -> None:
        """End gently, or, asked again, at once."""
        self._num_signals += 1
        if self._num_signals == 1:
            self._admission.drain()
            self._server.should_exit = True
            asyncio.get_running_loop().call_later(self._drain_s, self._stop_requests)
        else:
            self._server.force_exit = True
            self._server.drop_connections()

    def _stop_requests(self) -> None:
        message = f"the server is shutting down, and the request was not done within {self._drain_s:g} seconds"
        self._admission.stop_all(
            ApiError(503, message, type="server_error", code="shutting_down", retry_after=max(1, round(_GRACE_S)))
        )


def _uvicorn_config(app: FastAPI, settings: ServerSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=HttpConnection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=int(settings.drain_s + _GRACE_S),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where there is one: its event loop is the faster one."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
