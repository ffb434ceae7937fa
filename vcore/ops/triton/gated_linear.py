"""A joined gate and up projection of one row with its gate, in one pass: bound by reading the weights."""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl

from vcore.ops.gated_linear import gated_linear as reference_op
from vcore.ops.gelu_tanh_and_mul import gelu_tanh_and_mul
from vcore.ops.silu_and_mul import silu_and_mul
from vcore.ops.triton.early_start import begin, can_start_early, wait
from vcore.ops.triton.moe_gate import gated

__all__ = ["gated_linear"]

_DTYPES = frozenset({torch.bfloat16, torch.float16})
_BLOCK_N = 2
_MAX_BLOCK_K = 2048
"""Of gate and of up each: the tile that is best for an expert's, and of the size that is best for plain products."""


@triton.jit
def _tile(ptrs, mask, KNOWN: tl.constexpr):
    if KNOWN:
        return tl.load(ptrs, eviction_policy="evict_first")
    else:
        return tl.load(ptrs, mask=mask, other=0.0, eviction_policy="evict_first")


@triton.jit
def _gated_row_kernel(
    out_ptr,
    x_ptr,
    weight_ptr,
    num_features,
    stride_weight,
    SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GELU: tl.constexpr,
    WHOLE: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin(EARLY)
    features = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inputs = tl.arange(0, BLOCK_K)
    known = features < num_features
    gate_ptrs = weight_ptr + features.to(tl.int64)[:, None] * stride_weight + inputs[None, :]
    up_ptrs = gate_ptrs + num_features.to(tl.int64) * stride_weight
    mask = known[:, None] & (inputs < SIZE)[None, :]
    w_gate = _tile(gate_ptrs, mask, WHOLE)
    w_up = _tile(up_ptrs, mask, WHOLE)
    wait(EARLY)
    x = tl.load(x_ptr + inputs, mask=inputs < SIZE, other=0.0).to(tl.float32)
    gate = w_gate.to(tl.float32) * x[None, :]
    up = w_up.to(tl.float32) * x[None, :]
    for start in range(BLOCK_K, SIZE, BLOCK_K):
        mask = known[:, None] & (start + inputs < SIZE)[None, :]
        w_gate = _tile(gate_ptrs + start, mask, WHOLE)
        w_up = _tile(up_ptrs + start, mask, WHOLE)
        x = tl.load(x_ptr + start + inputs, mask=start + inputs < SIZE, other=0.0).to(tl.float32)
        gate += w_gate.to(tl.float32) * x[None, :]
        up += w_up.to(tl.float32) * x[None, :]
    result = gated(tl.sum(gate, 1), tl.sum(up, 1), GELU)
    tl.store(out_ptr + features, result.to(out_ptr.dtype.element_ty), mask=known)


def gated_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, gate: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """As `vcore.ops.gated_linear`: one row in half precision by the kernel here, everything else by two ops."""
    if not _takes(x, weight, bias, gate):
        return reference_op.reference(x, weight, bias, gate)
    num_features, size = weight.shape[0] // 2, weight.shape[1]
    out = torch.empty((*x.shape[:-1], num_features), dtype=x.dtype, device=x.device)
    block_k = min(_MAX_BLOCK_K, triton.next_power_of_2(size))
    early = can_start_early(x.device)
    _gated_row_kernel[(triton.cdiv(num_features, _BLOCK_N),)](
        out,
        x,
        weight,
        num_features,
        weight.stride(0),
        SIZE=size,
        BLOCK_N=_BLOCK_N,
        BLOCK_K=block_k,
        GELU=gate is gelu_tanh_and_mul,
        WHOLE=size % block_k == 0 and num_features % _BLOCK_N == 0,
        EARLY=early,
        **({"launch_pdl": True} if early else {}),
    )
    return out


def _takes(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, gate: Callable[[torch.Tensor], torch.Tensor]
) -> bool:
    if x.numel() != x.shape[-1] or x.dtype not in _DTYPES or not x.is_contiguous() or bias is not None:
        return False
    return (gate is silu_and_mul or gate is gelu_tanh_and_mul) and weight.dtype == x.dtype and weight.stride(1) == 1
