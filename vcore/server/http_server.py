"""`HttpServer`: uvicorn's server, with connections that have limits, and without its ways with signals."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import uvicorn

from vcore.server.client_warnings import ClientWarnings
from vcore.server.http_connection import HttpConnection
from vcore.server.listener import BACKLOG

if TYPE_CHECKING:
    from fastapi import FastAPI

    from vcore.config import ServerSettings
    from vcore.server.connection_limits import ConnectionLimits

__all__ = ["GRACE_S", "HttpServer"]

GRACE_S = 10.0
"""After the drain: for answers that say so to go out."""

_STARTUP_FAILED = 3
"""uvicorn's exit status for it."""


class HttpServer(uvicorn.Server):
    """Leaves signals to others, makes connections that have limits, and says when it listens."""

    def __init__(
        self,
        app: FastAPI,
        settings: ServerSettings,
        limits: ConnectionLimits,
        on_started: Callable[[], None],
    ) -> None:
        """Listen to nothing yet.

        Args:
            app: what answers.
            settings: how long clients may take, and the files for TLS.
            limits: for all of its connections.
            on_started: called when clients can connect.
        """
        super().__init__(_uvicorn_config(app, settings))
        self._limits = limits
        self._timeout_s = settings.head_timeout_s
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """In the place of uvicorn's, which can limit neither connections nor the time that a TLS handshake takes."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise SystemExit(_STARTUP_FAILED)
        loop = asyncio.get_running_loop()
        make = partial(
            HttpConnection,
            self.config,
            self.server_state,
            self.lifespan.state,
            loop,
            limits=self._limits,
            head_timeout_s=self._timeout_s,
            warnings=ClientWarnings(logging.getLogger("uvicorn.error"), loop.call_later),
        )
        timeout = None if self.config.ssl is None else self._timeout_s
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
        """Leave them as they are."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; the application ends in any case."""
        await super().shutdown(sockets)
        if self.force_exit:  # then uvicorn leaves it out, but what was opened is to be closed
            await self.lifespan.shutdown()

    def drop_connections(self) -> None:
        """Close every connection, whatever it was doing."""
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()


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
        timeout_graceful_shutdown=int(settings.drain_s + GRACE_S),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
