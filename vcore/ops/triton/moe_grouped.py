"""Experts of many tokens: products of rows sorted by expert, a tile of rows at a time.

Three kernels after the sorting (`moe_align`):

    gate_up    tile of rows of x, picked by their numbers    x  gate and up of their expert    -> gated, sorted
    down       tile of gated rows                            x  down of their expert           -> by row number
    sum        each token's rows, weighted, in the order of its choices, and what the caller adds

Programs walk the features of one tile before the next tile, so that an expert's weights, which all of its tiles
read, are read from memory about once. Nothing is summed across programs but by the last kernel, in a fixed order.
"""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl

from vcore.ops.triton.early_start import begin_and_wait, starts_early
from vcore.ops.triton.moe_align import SortedRows, sort_rows
from vcore.ops.triton.moe_configs import ProductConfig, grouped_config
from vcore.ops.triton.moe_gate import gated

__all__ = ["grouped_experts"]

_SUM_BLOCK = 1024


@triton.jit
def _weight_tile(acc, weight, rows, FEATURES_FIRST: tl.constexpr):
    """``acc + rows @ weight.T``, or its transpose."""
    if FEATURES_FIRST:
        return tl.dot(weight, tl.trans(rows), acc, input_precision="ieee")
    else:
        return tl.dot(rows, tl.trans(weight), acc, input_precision="ieee")


@triton.jit(do_not_specialize=["max_tiles"])
def _gate_up_kernel(
    hidden_ptr,
    x_ptr,
    weight_ptr,
    sorted_rows_ptr,
    tiles_ptr,
    num_tiles_ptr,
    max_tiles,
    stride_x,
    stride_expert,
    TOP_K: tl.constexpr,
    SIZE: tl.constexpr,
    FEATURES: tl.constexpr,
    GELU: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    FEATURES_FIRST: tl.constexpr,
    NUM_STAGES: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin_and_wait(EARLY)
    num_blocks: tl.constexpr = (FEATURES + BLOCK_N - 1) // BLOCK_N
    tile = tl.program_id(0) // num_blocks
    if tile >= tl.load(num_tiles_ptr):
        return
    expert = tl.load(tiles_ptr + tile).to(tl.int64)
    begin = tl.load(tiles_ptr + max_tiles + tile)
    end = tl.load(tiles_ptr + 2 * max_tiles + tile)
    places = begin + tl.arange(0, BLOCK_M)
    features = tl.program_id(0) % num_blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    inputs = tl.arange(0, BLOCK_K)
    # Rows and features past the end are computed from others that exist, and never stored.
    tokens = tl.load(sorted_rows_ptr + tl.minimum(places, end - 1)) // TOP_K
    x_ptrs = x_ptr + tokens.to(tl.int64)[:, None] * stride_x + inputs[None, :]
    weight_rows = tl.minimum(features, FEATURES - 1)
    gate_ptrs = weight_ptr + expert * stride_expert + weight_rows[:, None] * SIZE + inputs[None, :]
    up_ptrs = gate_ptrs + FEATURES * SIZE
    if FEATURES_FIRST:
        gate = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
        up = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    else:
        gate = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        up = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in tl.range(0, SIZE, BLOCK_K, num_stages=NUM_STAGES):
        if SIZE % BLOCK_K == 0:
            x = tl.load(x_ptrs + start)
            w_gate = tl.load(gate_ptrs + start)
            w_up = tl.load(up_ptrs + start)
        else:
            inside = (start + inputs < SIZE)[None, :]
            x = tl.load(x_ptrs + start, mask=inside, other=0.0)
            w_gate = tl.load(gate_ptrs + start, mask=inside, other=0.0)
            w_up = tl.load(up_ptrs + start, mask=inside, other=0.0)
        gate = _weight_tile(gate, w_gate, x, FEATURES_FIRST)
        up = _weight_tile(up, w_up, x, FEATURES_FIRST)
    hidden = gated(gate, up, GELU).to(hidden_ptr.dtype.element_ty)
    if FEATURES_FIRST:
        hidden = tl.trans(hidden)
    tl.store(
        hidden_ptr + places.to(tl.int64)[:, None] * FEATURES + features[None, :],
        hidden,
        mask=(places < end)[:, None] & (features < FEATURES)[None, :],
    )


@triton.jit(do_not_specialize=["max_tiles"])
def _down_kernel(
    terms_ptr,
    hidden_ptr,
    weight_ptr,
    sorted_rows_ptr,
    tiles_ptr,
    num_tiles_ptr,
    max_tiles,
    stride_expert,
    SIZE: tl.constexpr,
    FEATURES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    FEATURES_FIRST: tl.constexpr,
    NUM_STAGES: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin_and_wait(EARLY)
    num_blocks: tl.constexpr = (FEATURES + BLOCK_N - 1) // BLOCK_N
    tile = tl.program_id(0) // num_blocks
    if tile >= tl.load(num_tiles_ptr):
        return
    expert = tl.load(tiles_ptr + tile).to(tl.int64)
    begin = tl.load(tiles_ptr + max_tiles + tile)
    end = tl.load(tiles_ptr + 2 * max_tiles + tile)
    places = begin + tl.arange(0, BLOCK_M)
    features = tl.program_id(0) % num_blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    inputs = tl.arange(0, BLOCK_K)
    known_places = tl.minimum(places, end - 1)
    rows = tl.load(sorted_rows_ptr + known_places).to(tl.int64)
    hidden_ptrs = hidden_ptr + known_places.to(tl.int64)[:, None] * SIZE + inputs[None, :]
    weight_rows = tl.minimum(features, FEATURES - 1)
    weight_ptrs = weight_ptr + expert * stride_expert + weight_rows[:, None] * SIZE + inputs[None, :]
    if FEATURES_FIRST:
        acc = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    else:
        acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in tl.range(0, SIZE, BLOCK_K, num_stages=NUM_STAGES):
        if SIZE % BLOCK_K == 0:
            hidden = tl.load(hidden_ptrs + start)
            weight = tl.load(weight_ptrs + start)
        else:
            inside = (start + inputs < SIZE)[None, :]
            hidden = tl.load(hidden_ptrs + start, mask=inside, other=0.0)
            weight = tl.load(weight_ptrs + start, mask=inside, other=0.0)
        acc = _weight_tile(acc, weight, hidden, FEATURES_FIRST)
    terms = acc.to(terms_ptr.dtype.element_ty)
    if FEATURES_FIRST:
        terms = tl.trans(terms)
    tl.store(
        terms_ptr + rows[:, None] * FEATURES + features[None, :],
        terms,
        mask=(places < end)[:, None] & (features < FEATURES)[None, :],
    )


@triton.jit
def _sum_kernel(
    out_ptr,
    terms_ptr,
    weights_ptr,
    addend_ptr,
    TOP_K: tl.constexpr,
    FEATURES: tl.constexpr,
    HAS_ADDEND: tl.constexpr,
    BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin_and_wait(EARLY)
    token = tl.program_id(0).to(tl.int64)
    features = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = features < FEATURES
    total = tl.zeros([BLOCK], tl.float32)
    for choice in tl.static_range(TOP_K):
        row = token * TOP_K + choice
        term = tl.load(terms_ptr + row * FEATURES + features, mask=mask, other=0.0)
        total += term.to(tl.float32) * tl.load(weights_ptr + row)
    if HAS_ADDEND:
        total += tl.load(addend_ptr + token * FEATURES + features, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + token * FEATURES + features, total.to(out_ptr.dtype.element_ty), mask=mask)


def grouped_experts(
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
    num_experts, hidden_size = gate_up.shape[0], gate_up.shape[2]
    config = grouped_config(itemsize=x.dtype.itemsize, num_rows=expert_ids.numel(), num_experts=num_experts)
    early = starts_early(x.device, num_tokens)
    rows = sort_rows(expert_ids, num_experts, config.block_m)
    hidden = _gate_up(x, gate_up, rows, config.block_m, config.gate_up, top_k=top_k, gelu=gelu, early=early)
    terms = _down(hidden, down, rows, config.block_m, config.down, early=early)
    out = torch.empty((num_tokens, hidden_size), dtype=x.dtype, device=x.device)
    _sum_kernel[(num_tokens, triton.cdiv(hidden_size, _SUM_BLOCK))](
        out,
        terms,
        weights,
        addend,
        TOP_K=top_k,
        FEATURES=hidden_size,
        HAS_ADDEND=addend is not None,
        BLOCK=_SUM_BLOCK,
        EARLY=early,
        **({"launch_pdl": True} if early else {}),
    )
    return out


def _gate_up(
    x: torch.Tensor,
    weight: torch.Tensor,
    rows: SortedRows,
    block_m: int,
    config: ProductConfig,
    *,
    top_k: int,
    gelu: bool,
    early: bool,
) -> torch.Tensor:
    """[num_rows, intermediate_size], in sorted order."""
    num_features, size = weight.shape[1] // 2, weight.shape[2]
    hidden = torch.empty((rows.rows.shape[0], num_features), dtype=x.dtype, device=x.device)
    _gate_up_kernel[(rows.max_tiles * triton.cdiv(num_features, config.block_n),)](
        hidden,
        x,
        weight,
        rows.rows,
        rows.tiles,
        rows.num_tiles,
        rows.max_tiles,
        x.stride(0),
        weight.stride(0),
        TOP_K=top_k,
        SIZE=size,
        FEATURES=num_features,
        GELU=gelu,
        **_compiled(block_m, config),
        EARLY=early,
        **({"launch_pdl": True} if early else {}),
    )
    return hidden


def _down(
    hidden: torch.Tensor, weight: torch.Tensor, rows: SortedRows, block_m: int, config: ProductConfig, *, early: bool
) -> torch.Tensor:
    """[num_rows, hidden_size], by number of the row."""
    num_features, size = weight.shape[1], weight.shape[2]
    terms = torch.empty((hidden.shape[0], num_features), dtype=hidden.dtype, device=hidden.device)
    _down_kernel[(rows.max_tiles * triton.cdiv(num_features, config.block_n),)](
        terms,
        hidden,
        weight,
        rows.rows,
        rows.tiles,
        rows.num_tiles,
        rows.max_tiles,
        weight.stride(0),
        SIZE=size,
        FEATURES=num_features,
        **_compiled(block_m, config),
        EARLY=early,
        **({"launch_pdl": True} if early else {}),
    )
    return terms


def _compiled(block_m: int, config: ProductConfig) -> dict[str, int]:
    return {
        "BLOCK_M": block_m,
        "BLOCK_N": config.block_n,
        "BLOCK_K": config.block_k,
        "FEATURES_FIRST": config.features_first,
        "NUM_STAGES": config.num_stages,
        "num_warps": config.num_warps,
    }
