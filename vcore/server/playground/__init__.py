"""The page at ``/``: a chat with the model and a live view of the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from vcore.engine.async_llm import AsyncLLM
    from vcore.server.settings import ServerSettings

__all__ = ["install"]


def install(app: FastAPI, engine: AsyncLLM, settings: ServerSettings) -> None:
    """Add the page and what feeds it to `app`."""
