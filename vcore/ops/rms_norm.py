"""Root mean square normalisation (Zhang and Sennrich, 2019, arXiv:1910.07467, equation 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vcore.ops.dispatch import op

__all__ = ["add_rms_norm", "rms_norm"]


@op(cuda="vcore.ops.triton.rms_norm:rms_norm")
def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """``x / sqrt(mean(x²) + eps) * weight`` over the last axis.

    Args:
        x: [..., size], any floating dtype; the mean is taken in float32 at least. Not changed.
        weight: [size], dtype of x, or float32, in which the product is taken then. Nothing that a step computes: a
            kernel may read it before the work launched earlier is done.
        eps: added to the mean square.

    Returns:
        Shape and dtype of x.
    """
    return F.rms_norm(x.to(weight.dtype), weight.shape, weight, eps).to(x.dtype)


@op(cuda="vcore.ops.triton.rms_norm:add_rms_norm")
def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add `x` to the residual stream and normalise the sum: what stands between two blocks.

    Args:
        x: [..., size], the output of the last block. Not changed.
        residual: shape and dtype of x. Not changed.
        weight: as for `rms_norm`.
        eps: added to the mean square.

    Returns:
        The normalised sum, and the sum: the new residual.
    """
    total = x + residual
    return rms_norm.reference(total, weight, eps), total
