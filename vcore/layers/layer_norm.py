"""`LayerNorm`: normalisation by mean and variance (Ba, Kiros, Hinton, 2016, arXiv:1607.06450)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from vcore.interfaces.model import BuildContext
from vcore.layers.weights import PartitionedModule, WeightPart, parameter

__all__ = ["LayerNorm"]


class LayerNorm(PartitionedModule):
    """``(x - mean) / sqrt(variance + eps) * weight + bias`` (equation 4), which also carries the residual stream.

    Parameters: ``weight``, and ``bias`` if there is one; each whole on every rank.
    """

    def __init__(
        self, context: BuildContext, size: int, eps: float, *, bias: bool = True, unit_offset: bool = False
    ) -> None:
        """Args:
        context: the device and dtype to build for.
        size: features that are normalised together.
        eps: added to the variance.
        bias: whether the norm adds one.
        unit_offset: multiply by one plus the checkpoint's weight; the sum is kept in float32.
        """
        super().__init__()
        self.eps = eps
        self._size = (size,)
        self._offset = 1.0 if unit_offset else 0.0
        dtype = torch.float32 if unit_offset else context.dtype
        self.weight = parameter(self._size, dtype, context.device)
        self.bias = parameter(self._size, dtype, context.device) if bias else None

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Args:
            x: [num_tokens, size], what the last block adds to the residual stream; the stream itself if
                `residual` is None.
            residual: [num_tokens, size], the stream before it; neither is changed.

        Returns:
            The normalised stream, and the stream.
        """
        stream = x if residual is None else x + residual
        return self.normalize(stream), stream

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        """The norm alone: [..., size] to the same."""
        if x.dtype == self.weight.dtype:
            return F.layer_norm(x, self._size, self.weight, self.bias, self.eps)
        return F.layer_norm(x.to(self.weight.dtype), self._size, self.weight, self.bias, self.eps).to(x.dtype)

    def weight_parts(self, parameter_name: str) -> Sequence[WeightPart]:
        """Weight or bias, whole on each rank."""
        return (WeightPart(self._size),)

    def weights_loaded(self) -> None:
        if self._offset:
            self.weight.add_(self._offset)
