"""The gate of a SwiGLU feed-forward layer (Shazeer, 2020, arXiv:2002.05202, equation 5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vcore.ops.dispatch import op

__all__ = ["silu_and_mul"]


@op(cuda="vcore.ops.triton.gates:silu_and_mul")
def silu_and_mul(x: torch.Tensor) -> torch.Tensor:
    """``silu(gate) * up`` of the joined projection.

    Args:
        x: [..., 2 * size]: gate, then up. Not changed.

    Returns:
        [..., size], dtype of x.
    """
    gate, up = x.chunk(2, -1)  # [..., size] each
    return F.silu(gate).mul_(up)
