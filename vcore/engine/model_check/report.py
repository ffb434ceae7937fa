"""`ModelReport`: what was found out about a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcore.engine.outline import ModelOutline
from vcore.engine.resolve import Decision

if TYPE_CHECKING:
    import torch

__all__ = ["MemoryNeeds", "ModelReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeeds:
    """Bytes of one rank against what its device has. Only a run of the largest step tells what steps take beside."""

    device_bytes: int
    """What the engine may use: of the device's memory `cache.memory_fraction`, on CPU what is available."""
    cache_bytes: int
    """What is left for the KV cache beside the weights; as much as is asked for, where the number of blocks is."""
    max_cached_tokens: int
    """Tokens whose keys and values that holds, if every one is kept in every layer."""
    request_bytes: int
    """The most that one request of `max_model_len` tokens holds."""
    num_requests: int
    """How many of those fit at a time."""

    def to_dict(self) -> dict[str, int]:
        """As plain data for JSON."""
        return {
            "device_bytes": self.device_bytes,
            "cache_bytes": self.cache_bytes,
            "max_cached_tokens": self.max_cached_tokens,
            "request_bytes": self.request_bytes,
            "num_requests": self.num_requests,
        }


@dataclass(slots=True, kw_only=True)
class ModelReport:
    """Everything that could be told; None where it could not."""

    name: str
    """As it was asked for."""
    reasons: list[str] = field(default_factory=list)
    """Why it cannot be served; empty if it can."""
    notes: list[str] = field(default_factory=list)
    """What is worth knowing, and keeps nothing from working."""
    path: Path | None = None
    architectures: tuple[str, ...] = ()
    loader: str | None = None
    """Address of the weight loader."""
    plugin: str | None = None
    """Address of the model plugin."""
    device: torch.device | None = None
    dtype: torch.dtype | None = None
    ranks: int = 1
    max_model_len: int | None = None
    max_chunk: int | None = None
    """Most tokens of one request in a step."""
    block_size: int | None = None
    outline: ModelOutline | None = None
    weights: str = "unknown"
    """``fit``, ``misfit``, ``missing``, ``made up``, or ``unknown``."""
    attention: Decision | None = None
    """The attention backend, and why."""
    memory: MemoryNeeds | None = None

    @property
    def servable(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON, but for what depends on how an outline is told."""
        return {
            "name": self.name,
            "servable": self.servable,
            "reasons": self.reasons,
            "notes": self.notes,
            "path": None if self.path is None else str(self.path),
            "architectures": list(self.architectures),
            "loader": self.loader,
            "plugin": self.plugin,
            "device": None if self.device is None else str(self.device),
            "dtype": None if self.dtype is None else str(self.dtype).removeprefix("torch."),
            "tensor_parallel_size": self.ranks,
            "max_model_len": self.max_model_len,
            "block_size": self.block_size,
            "weights": self.weights,
            "attention": None if self.attention is None else self.attention.to_dict(),
            "memory": None if self.memory is None else self.memory.to_dict(),
        }
