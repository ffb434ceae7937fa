"""An attention backend that computes nothing and remembers which layers it was asked for."""

from __future__ import annotations

from typing import Any, NoReturn

import torch

from vcore.interfaces.attention import (
    AttentionBackend,
    AttentionLayer,
    AttentionMetadata,
    LatentAttentionLayer,
    LatentSpec,
    LayerSpec,
)

__all__ = ["RecordingAttention", "RecordingCollective"]


class RecordingAttention(AttentionBackend):
    """Serves any layer, and keeps its spec."""

    def __init__(self) -> None:
        self.layers: list[LayerSpec | LatentSpec] = []
        """What was asked for, in order."""

    def build_layer(self, spec: LayerSpec) -> AttentionLayer:
        """Note `spec`; what is returned has no `forward`."""
        self.layers.append(spec)
        return _SilentLayer()

    def build_latent_layer(self, spec: LatentSpec) -> LatentAttentionLayer:
        """Note `spec`; what is returned has no `forward`."""
        self.layers.append(spec)
        return _SilentLatentLayer()

    def plan(self, metadata: AttentionMetadata) -> NoReturn:
        """Refuse: nothing is computed here."""
        raise _nothing_is_computed()


class RecordingCollective:
    """Stands for the exchange among ranks while a model is built: the shapes are right, nothing is exchanged."""

    def __init__(self, size: int) -> None:
        self._size = size

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor itself."""
        return tensor

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, once for each rank, along its last axis."""
        return torch.cat([tensor] * self._size, dim=-1)


class _SilentLayer(AttentionLayer):
    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise _nothing_is_computed()


class _SilentLatentLayer(LatentAttentionLayer):
    def forward_absorbed(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise _nothing_is_computed()

    def forward_ragged(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise _nothing_is_computed()


def _nothing_is_computed() -> NotImplementedError:
    return NotImplementedError("this model was built to be described, on a device without memory; it computes nothing")
