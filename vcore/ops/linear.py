"""Matrix products with weights, which may be packed for the CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vcore.ops.dispatch import op

__all__ = ["linear", "pack_linear_weight"]

_ROWS_PACKED_FOR = 32
"""oneDNN chooses a packing by the number of rows; that for 32 also serves 1 and 2048 at full speed."""


@op()
def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``x @ weight.T + bias``.

    Args:
        x: [..., in_features]. Not changed.
        weight: [out_features, in_features], dtype of x; plain, or from `pack_linear_weight`.
        bias: [out_features], dtype of x.

    Returns:
        [..., out_features], dtype of x.
    """
    if weight.is_mkldnn:
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return product
    return F.linear(x, weight, bias)


def pack_linear_weight(weight: torch.Tensor) -> torch.Tensor:
    """`weight` in the layout that `linear` multiplies by fastest; the same tensor where there is no better one.

    Float32 on a CPU with oneDNN: measured on an AVX-512 machine, products of 2 to 8 rows take a quarter of the
    time of the plain layout, larger ones less than half. The result is opaque but for its shape and ``to_dense()``.
    """
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not torch._C._has_mkldnn:
        return weight
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS_PACKED_FOR)
    return packed
