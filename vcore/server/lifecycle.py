"""A server's life: its socket, its signals, and how it ends.

first signal    nothing more is let in, listening ends, open requests go on for `drain_s` seconds
after that      what is still open ends with an error that says so
second signal   the same at once
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import uvicorn

from vcore.errors import ConfigError
from vcore.server.app import create_app
from vcore.server.errors import ApiError
from vcore.server.http_connection import HttpConnection

if TYPE_CHECKING:
    from fastapi import FastAPI

    from vcore.engine.async_llm import AsyncLLM
    from vcore.server.settings import ServerSettings

__all__ = ["run_server"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_KEEP_ALIVE_S = 65
"""Longer than proxies keep idle connections, so that it is they who close."""
_GRACE_S = 10.0
"""After the drain: for answers that say so to go out."""

_MAX_FILES = 1 << 16
_BACKLOG = 2048

Announce = Callable[[str], None]
"""Told of the server's address once it answers."""


def run_server(engine: AsyncLLM, settings: ServerSettings, announce: Announce) -> None:
    """Start `engine`, serve it until a signal, and close it.

    Args:
        engine: not started.
        settings: how to serve it.
        announce: told the server's address.

    Raises:
        ConfigError: the address cannot be had, or a file that `settings` names cannot be read; nothing was started.
        KeyboardInterrupt: a signal came before the engine had started.
        VcoreError: the engine could not be started.
    """
    _check_tls(settings)
    _allow_connections()
    with contextlib.closing(_bind(settings)) as listener, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_run(engine, settings, listener, announce))


async def _run(engine: AsyncLLM, settings: ServerSettings, listener: socket.socket, announce: Announce) -> None:
    async with _started(engine):
        app = create_app(engine, settings)
        server = _Server(_uvicorn_config(app, settings), lambda: announce(_address(listener, settings)))
        ending = _Ending(server, app, settings.drain_s)
        _listen(listener, settings)
        with _on_signals(ending.on_signal):
            await server.serve(sockets=[listener])


@asynccontextmanager
async def _started(engine: AsyncLLM) -> AsyncIterator[None]:
    """The engine runs in the block. A signal before that ends the attempt."""
    starting = asyncio.ensure_future(engine.start())
    try:
        with _on_signals(starting.cancel):
            try:
                await starting
            except asyncio.CancelledError:
                raise KeyboardInterrupt from None
        yield
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
    """Leaves signals to `_Ending`, and says when it listens."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
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
    """What signals do to a server."""

    def __init__(self, server: _Server, app: FastAPI, drain_s: float) -> None:
        self._server = server
        self._admission = app.state.context.admission
        self._drain_s = drain_s
        self._num_signals = 0

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
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
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


def _allow_connections() -> None:
    """Take as many open files as the system gives for the asking: often 1,024 are given, and a connection takes one."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _check_tls(settings: ServerSettings) -> None:
    if settings.tls_cert is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"tls_cert={settings.tls_cert} and tls_key={settings.tls_key}: {error}") from error


def _bind(settings: ServerSettings) -> socket.socket:
    """Take the address before a model is loaded for it. Nobody can connect yet."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except (OSError, UnicodeError) as error:
        listener.close()
        raise _cannot_listen(settings, error) from error
    listener.setblocking(False)
    return listener


def _listen(listener: socket.socket, settings: ServerSettings) -> None:
    """Let clients connect. Of two servers that took an address while neither listened, the second one fails here."""
    try:
        listener.listen(_BACKLOG)
    except OSError as error:
        raise _cannot_listen(settings, error) from error


def _cannot_listen(settings: ServerSettings, error: Exception) -> ConfigError:
    return ConfigError(
        f"cannot listen on {settings.host} port {settings.port}: {error}. Choose another --port (0 takes any), or end "
        "what listens there"
    )


def _address(listener: socket.socket, settings: ServerSettings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "http" if settings.tls_cert is None else "https"
    return f"{scheme}://{host}:{listener.getsockname()[1]}"
