"""Matrix products of half-precision inputs and weights that are not rounded back to half precision: of routers."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vcore.ops.dispatch import op

__all__ = ["wide_linear"]


@op(cuda="vcore.ops.triton.linear:wide_linear")
def wide_linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``x @ weight.T`` in float32. A product of two halves is exact in float32, so only the sums are rounded.

    Args:
        x: [num_tokens, in_features], bfloat16 or float16. Not changed.
        weight: [out_features, in_features], dtype of x. Nothing that a step computes.

    Returns:
        float32 [num_tokens, out_features].
    """
    return F.linear(x.float(), weight.float())
