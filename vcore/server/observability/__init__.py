"""What operators see of a server: metrics, traces, request logs and the timeline of steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from vcore.engine.async_llm import AsyncLLM
    from vcore.server.settings import ServerSettings

__all__ = ["install"]


def install(app: FastAPI, engine: AsyncLLM, settings: ServerSettings) -> None:
    """Add metrics, traces, logs and the timeline to `app`."""
