"""Experts of a few tokens: each row by itself, bound by reading the weights; nothing is sorted.

Two kernels: the first computes gate and up projections and the gate, the second the down projections of all of a
token's experts and their weighted sum. Nothing is summed across programs.
"""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl

from vcore.ops.triton.early_start import begin_and_wait, can_start_early
from vcore.ops.triton.moe_configs import down_row_config, gate_up_row_config
from vcore.ops.triton.moe_gate import gated

__all__ = ["row_experts"]


@triton.jit
def _gate_up_kernel(
    hidden_ptr,
    x_ptr,
    weight_ptr,
    expert_ids_ptr,
    stride_x,
    stride_expert,
    TOP_K: tl.constexpr,
    SIZE: tl.constexpr,
    FEATURES: tl.constexpr,
    GELU: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin_and_wait(EARLY)
    row = tl.program_id(1).to(tl.int64)
    features = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inputs = tl.arange(0, BLOCK_K)
    known = features < FEATURES
    expert = tl.load(expert_ids_ptr + row)
    gate_ptrs = weight_ptr + expert * stride_expert + features[:, None] * SIZE + inputs[None, :]
    x_ptrs = x_ptr + row // TOP_K * stride_x + inputs
    gate = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    up = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    for start in tl.static_range(0, SIZE, BLOCK_K):
        inside = start + inputs < SIZE
        mask = known[:, None] & inside[None, :]
        x = tl.load(x_ptrs + start, mask=inside, other=0.0).to(tl.float32)
        w_gate = tl.load(gate_ptrs + start, mask=mask, other=0.0, eviction_policy="evict_first")
        w_up = tl.load(gate_ptrs + FEATURES * SIZE + start, mask=mask, other=0.0, eviction_policy="evict_first")
        gate += w_gate.to(tl.float32) * x[None, :]
        up += w_up.to(tl.float32) * x[None, :]
    hidden = gated(tl.sum(gate, 1), tl.sum(up, 1), GELU)
    tl.store(hidden_ptr + row * FEATURES + features, hidden.to(hidden_ptr.dtype.element_ty), mask=known)


@triton.jit
def _down_kernel(
    out_ptr,
    hidden_ptr,
    weight_ptr,
    weights_ptr,
    expert_ids_ptr,
    addend_ptr,
    stride_expert,
    TOP_K: tl.constexpr,
    SIZE: tl.constexpr,
    FEATURES: tl.constexpr,
    HAS_ADDEND: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin_and_wait(EARLY)
    token = tl.program_id(1).to(tl.int64)
    features = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inputs = tl.arange(0, BLOCK_K)
    known = features < FEATURES
    total = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    for choice in tl.static_range(TOP_K):
        row = token * TOP_K + choice
        expert = tl.load(expert_ids_ptr + row)
        share = tl.load(weights_ptr + row)
        weight_ptrs = weight_ptr + expert * stride_expert + features[:, None] * SIZE + inputs[None, :]
        for start in tl.static_range(0, SIZE, BLOCK_K):
            inside = start + inputs < SIZE
            mask = known[:, None] & inside[None, :]
            hidden = tl.load(hidden_ptr + row * SIZE + start + inputs, mask=inside, other=0.0).to(tl.float32)
            weight = tl.load(weight_ptrs + start, mask=mask, other=0.0, eviction_policy="evict_first")
            total += weight.to(tl.float32) * (hidden * share)[None, :]
    result = tl.sum(total, 1)
    if HAS_ADDEND:
        result += tl.load(addend_ptr + token * FEATURES + features, mask=known, other=0.0).to(tl.float32)
    tl.store(out_ptr + token * FEATURES + features, result.to(out_ptr.dtype.element_ty), mask=known)


def row_experts(
    x: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    weights: torch.Tensor,
    expert_ids: torch.Tensor,
    addend: torch.Tensor | None,
    *,
    gelu: bool,
) -> torch.Tensor:
    """As `vcore.ops.fused_experts`; all tensors but `x` contiguous, `x` in its last axis, `gelu` or SiLU."""
    num_tokens, top_k = expert_ids.shape
    num_features, hidden_size = gate_up.shape[1] // 2, gate_up.shape[2]
    hidden = torch.empty((num_tokens * top_k, num_features), dtype=x.dtype, device=x.device)
    out = torch.empty((num_tokens, hidden_size), dtype=x.dtype, device=x.device)
    early = can_start_early(x.device)
    early_launch = {"launch_pdl": True} if early else {}
    config = gate_up_row_config()
    _gate_up_kernel[(triton.cdiv(num_features, config.block_n), num_tokens * top_k)](
        hidden,
        x,
        gate_up,
        expert_ids,
        x.stride(0),
        gate_up.stride(0),
        TOP_K=top_k,
        SIZE=hidden_size,
        FEATURES=num_features,
        GELU=gelu,
        BLOCK_N=config.block_n,
        BLOCK_K=min(config.max_block_k, triton.next_power_of_2(hidden_size)),
        EARLY=early,
        num_warps=config.num_warps,
        **early_launch,
    )
    config = down_row_config()
    _down_kernel[(triton.cdiv(hidden_size, config.block_n), num_tokens)](
        out,
        hidden,
        down,
        weights,
        expert_ids,
        addend,
        down.stride(0),
        TOP_K=top_k,
        SIZE=num_features,
        FEATURES=hidden_size,
        HAS_ADDEND=addend is not None,
        BLOCK_N=config.block_n,
        BLOCK_K=min(config.max_block_k, triton.next_power_of_2(num_features)),
        EARLY=early,
        num_warps=config.num_warps,
        **early_launch,
    )
    return out
