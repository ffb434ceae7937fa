"""``/v1/models``, ``/health`` and ``/version``."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

__all__ = ["Health", "ModelCard", "ModelList", "Version"]


class ModelCard(TypedDict):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    """When the server started, in seconds since 1970."""
    owned_by: str
    root: str
    """`model.path` of the engine's configuration."""
    max_model_len: int
    """Most tokens of prompt and output together."""


class ModelList(TypedDict):
    """All models that are served."""

    object: Literal["list"]
    data: list[ModelCard]


class Health(TypedDict):
    """Whether requests are served."""

    status: Literal["starting", "ready", "restarting", "dead", "closed", "draining"]
    reason: str | None
    """Why it is not ready."""
    restarts: int
    """How often the engine's process was restarted."""
    faults: list[str]
    """Policies that failed and were replaced by the core's own order."""
    failed_steps: int
    """Steps that raised; their requests ended with an error, others went on."""


class Version(TypedDict):
    """The server's version."""

    version: str
