"""The gate of a GEGLU feed-forward layer (Shazeer, 2020, arXiv:2002.05202, equation 5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vcore.ops.dispatch import op

__all__ = ["gelu_tanh_and_mul"]


@op(cuda="vcore.ops.triton.gates:gelu_tanh_and_mul")
def gelu_tanh_and_mul(x: torch.Tensor) -> torch.Tensor:
    """``gelu(gate) * up`` of the joined projection, with the tanh approximation of GELU (arXiv:1606.08415, section 2).

    Args:
        x: [..., 2 * size]: gate, then up. Not changed.

    Returns:
        [..., size], dtype of x.
    """
    gate, up = x.chunk(2, -1)  # [..., size] each
    return F.gelu(gate, approximate="tanh").mul_(up)
