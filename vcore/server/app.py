"""`create_app`: the server's parts put together. It opens no socket and starts no engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from vcore.server import observability, playground
from vcore.server.context import ServerContext
from vcore.server.error_handlers import install_error_handlers
from vcore.server.middleware.api_keys import ApiKeys
from vcore.server.middleware.bodies import Bodies
from vcore.server.middleware.request_ids import HEADER, RequestIds
from vcore.server.openapi import describe
from vcore.server.routes import chat, completions, embeddings, models, operations, responses, tokenize

if TYPE_CHECKING:
    from vcore.config import ServerSettings
    from vcore.engine.async_llm import AsyncLLM
    from vcore.server.engine_client import EngineClient

__all__ = ["create_app"]

_ROUTERS = (models, completions, chat, responses, embeddings, tokenize, operations)


def create_app(engine: EngineClient, settings: ServerSettings) -> FastAPI:
    """The application that serves `engine`.

    Args:
        engine: an `AsyncLLM` that was started; the caller closes it, after the application.
        settings: how to serve it.

    Raises:
        ConfigError: a file that `settings` names cannot be read, or a variable of the environment is not set.
        PluginError: a parser that the configuration names cannot be used.
    """
    settings = settings.filled()
    app = FastAPI(title="vcore", docs_url=None, redoc_url=None)
    app.state.context = ServerContext.create(engine, settings)
    for module in _ROUTERS:
        app.include_router(module.router)
    install_error_handlers(app)
    _add_middleware(app, settings)
    whole = cast("AsyncLLM", engine)
    observability.install(app, whole, settings)
    playground.install(app, whole, settings)
    _describe_once(app, settings)
    return app


def _add_middleware(app: FastAPI, settings: ServerSettings) -> None:
    """The last one that is added stands outermost."""
    app.add_middleware(Bodies, max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s)
    if settings.guarded:
        app.add_middleware(ApiKeys, keys=settings.api_keys)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=[HEADER, "Retry-After"],
        )
    app.add_middleware(RequestIds)


def _describe_once(app: FastAPI, settings: ServerSettings) -> None:
    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app, settings)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to change it
