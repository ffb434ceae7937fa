"""What operators see of a server: metrics, traces, request logs and the timeline of steps.

    engine listener ──► EngineMetrics ─► /metrics        HttpWatch ──► HttpMetrics ─► /metrics
                   ├──► Timeline ──────► /trace                   └──► RequestLog
                   ├──► RequestLog ────► JSON lines on stderr
                   └──► RequestSpans ──► OpenTelemetry

All of it hears what the engine has done, a step or a request later; nothing here is asked before something happens.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from vcore.server.observability.http_watch import Exchange, HttpWatch
from vcore.server.observability.observability import Observability
from vcore.server.observability.request_notes import note_request
from vcore.server.observability.routes import make_router

if TYPE_CHECKING:
    from fastapi import FastAPI

    from vcore.config import ServerSettings
    from vcore.engine.async_llm import AsyncLLM

__all__ = ["Observability", "install", "note_request"]


def install(
    app: FastAPI, engine: AsyncLLM, settings: ServerSettings, *, observability: Observability | None = None
) -> None:
    """Add ``/metrics``, ``/trace`` and a middleware to `app`, and begin to listen to `engine`.

    What is watched with stands in ``app.state.observability``, and is closed with the application.

    Args:
        app: before it serves.
        engine: started or not.
        settings: what to log and where to send traces.
        observability: in the place of the one that `settings` describe.

    Raises:
        ConfigError: traces are asked for without the extra that sends them.
    """
    watching = observability if observability is not None else Observability(engine, settings)
    app.state.observability = watching
    app.include_router(make_router(watching, trace_allowed=settings.trace_allowed))
    told: list[Callable[[Exchange], None]] = [watching.http.end]
    if watching.log is not None:
        told.append(watching.log.on_exchange)
    app.add_middleware(HttpWatch, begin=watching.http.begin, end=told, notes=watching.wanted_notes)
    _close_with(app, watching)


def _close_with(app: FastAPI, watching: Observability) -> None:
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        try:
            async with inner(app) as state:
                yield state
        finally:
            watching.close()

    app.router.lifespan_context = lifespan
