"""The experts of a mixture-of-experts layer: which kernels compute them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from vcore.ops.gelu_tanh_and_mul import gelu_tanh_and_mul
from vcore.ops.moe import fused_experts as reference
from vcore.ops.silu_and_mul import silu_and_mul
from vcore.ops.triton.moe_configs import MAX_ROW_TOKENS
from vcore.ops.triton.moe_grouped import grouped_experts
from vcore.ops.triton.moe_rows import row_experts

__all__ = ["fused_experts"]

_DTYPES = frozenset({torch.bfloat16, torch.float16, torch.float32})
_ALIGNMENT = 16
"""Bytes that rows of weights begin at a multiple of, as loads want it."""


def fused_experts(
    x: torch.Tensor,
    gate_up: torch.Tensor | Sequence[torch.Tensor],
    down: torch.Tensor | Sequence[torch.Tensor],
    weights: torch.Tensor,
    expert_ids: torch.Tensor,
    gate: Callable[[torch.Tensor], torch.Tensor],
    addend: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `vcore.ops.fused_experts`; the host waits for nothing."""
    if (
        not _served(x, gate_up, down, gate)
        or not isinstance(gate_up, torch.Tensor)
        or not isinstance(down, torch.Tensor)
    ):
        return reference.reference(x, gate_up, down, weights, expert_ids, gate, addend)
    if x.shape[0] == 0:
        return torch.zeros_like(x)
    if x.stride(-1) != 1:
        x = x.contiguous()
    experts = row_experts if x.shape[0] <= MAX_ROW_TOKENS else grouped_experts
    if addend is not None:
        addend = addend.contiguous()
    gelu = gate is gelu_tanh_and_mul
    return experts(x, gate_up, down, weights.contiguous(), expert_ids.contiguous(), addend, gelu=gelu)


def _served(
    x: torch.Tensor,
    gate_up: torch.Tensor | Sequence[torch.Tensor],
    down: torch.Tensor | Sequence[torch.Tensor],
    gate: Callable[[torch.Tensor], torch.Tensor],
) -> bool:
    if x.dtype not in _DTYPES or not (gate is silu_and_mul or gate is gelu_tanh_and_mul):
        return False
    return all(
        isinstance(matrices, torch.Tensor)
        and matrices.is_contiguous()
        and matrices.shape[2] * matrices.dtype.itemsize % _ALIGNMENT == 0
        for matrices in (gate_up, down)
    )
