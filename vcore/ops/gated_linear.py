"""A joined gate and up projection and its gate."""

from __future__ import annotations

from collections.abc import Callable

import torch

from vcore.ops.dispatch import op
from vcore.ops.linear import linear

__all__ = ["gated_linear"]


@op(cuda="vcore.ops.triton.gated_linear:gated_linear")
def gated_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, gate: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """``gate(linear(x, weight, bias))``.

    Args:
        x: [..., in_features]. Not changed.
        weight: [2 * size, in_features]: gate, then up; as for `linear`.
        bias: [2 * size], or None.
        gate: takes gate and up, [..., 2 * size], to [..., size].

    Returns:
        [..., size], dtype of x.
    """
    return gate(linear(x, weight, bias))
