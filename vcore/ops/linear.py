"""Matrix products with weights, which may be packed for the CPU."""

from __future__ import annotations

import functools
import logging

import torch
import torch.nn.functional as F

from vcore.ops.dispatch import op

__all__ = ["linear", "pack_linear_weight"]

logger = logging.getLogger(__name__)

_ROWS_PACKED_FOR = 32
"""oneDNN chooses a packing by the number of rows; that for 32 also serves 1 and 2048 at full speed."""


@op(cuda="vcore.ops.triton.linear:linear")
def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``x @ weight.T + bias``.

    Args:
        x: [..., in_features]. Not changed.
        weight: [out_features, in_features], dtype of x; plain, or from `pack_linear_weight`. Nothing that a step
            computes: a kernel may read it before the work launched earlier is done.
        bias: [out_features], dtype of x.

    Returns:
        [..., out_features], dtype of x.
    """
    return _packed_product(x, weight, bias) if weight.is_mkldnn else F.linear(x, weight, bias)


def pack_linear_weight(weight: torch.Tensor) -> torch.Tensor:
    """`weight` in the layout that `linear` multiplies by fastest; the same tensor where there is no better one.

    Float32 on a CPU with oneDNN: measured on an AVX-512 machine, products of 2 to 8 rows take a quarter of the
    time of the plain layout, larger ones less than half. The result is opaque but for its shape and ``to_dense()``.
    """
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not _can_pack():
        return weight
    return _pack(weight)


@functools.cache
def _can_pack() -> bool:
    """Whether this build of torch packs a weight and multiplies by it rightly, found by trying once.

    Both operations are torch's own affair: builds without oneDNN lack them, and a later version may change them.
    """
    weight = torch.arange(6.0, dtype=torch.float32, device="cpu").view(3, 2)
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float32, device="cpu")
    try:
        return torch.equal(_packed_product(x, _pack(weight), None), F.linear(x, weight))
    except Exception as error:  # whatever a private operation does where it is not what it was
        logger.debug("weights are not packed: %s: %s", type(error).__name__, error)
        return False


def _pack(weight: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS_PACKED_FOR)
    return packed


def _packed_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product
