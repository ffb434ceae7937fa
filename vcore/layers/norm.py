"""Normalisation layers."""

from __future__ import annotations

import torch
from torch import nn

from vcore.interfaces.model import BuildContext
from vcore.layers.weights import parameter
from vcore.ops.rms_norm import add_rms_norm, rms_norm

__all__ = ["RMSNorm"]


class RMSNorm(nn.Module):
    """Root mean square normalisation that also carries the residual stream."""

    def __init__(self, context: BuildContext, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = parameter((size,), context.dtype, context.device)

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Args:
            x: [num_tokens, size], what the last block adds to the residual stream; the stream itself if
                `residual` is None.
            residual: [num_tokens, size], the stream before it; neither is changed.

        Returns:
            The normalised stream, and the stream.
        """
        if residual is None:
            return rms_norm(x, self.weight, self.eps), x
        return add_rms_norm(x, residual, self.weight, self.eps)
