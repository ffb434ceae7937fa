"""The page at ``/``: a chat with the model and a live view of the engine.

Observability ──► LiveState ────► /ui/state    the numbers, a second old at most
AsyncLLM ───────► BlockPicture ─► /ui/blocks   the map of KV blocks
templates/ static/                             the page: one template, one style sheet, a few small scripts
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcore.server.playground.block_picture import BlockPicture
from vcore.server.playground.live_state import LiveState
from vcore.server.playground.rates import Rates
from vcore.server.playground.routes import make_router

if TYPE_CHECKING:
    from fastapi import FastAPI

    from vcore.config import ServerSettings
    from vcore.engine.async_llm import AsyncLLM

__all__ = ["install"]


def install(app: FastAPI, engine: AsyncLLM, settings: ServerSettings) -> None:
    """Add the page and what feeds it to `app`, on which `vcore.server.observability` was installed before."""
    rates = Rates()
    engine.add_listener(rates)
    live = LiveState(engine, app.state.observability, rates)
    router = make_router(live, BlockPicture(engine), model_names=settings.model_names, guarded=settings.guarded)
    app.include_router(router)
