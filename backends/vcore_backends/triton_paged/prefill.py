"""Ragged causal prefill over a paged cache: chunks of prompts whose earlier part may be cached.

One program computes ``BLOCK_M`` query tokens of one request for one head. Request i's query tiles
start at ``query_start_loc[i] // BLOCK_M + i``; consecutive requests are at least their tile count
apart, so the grid's size follows from the number of tokens and requests, without knowing lengths, and
a program finds its request by counting. Keys are walked in tiles of ``BLOCK_N``; only tiles
that the causal edge, the window's edge or the end of the context cuts are masked. Softmax is online
(FlashAttention-2; Dao, 2023, algorithm 1), in base 2.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from vcore.ops.triton.quick_jit import quick_jit
from vcore_backends.triton_paged.configs import PrefillConfig
from vcore_backends.triton_paged.tiles import LOG2_E, block_ids, chunk_class, soft_capped

__all__ = ["attend", "prefill_attention"]


@triton.jit
def _key_pointers(
    row_ptrs,
    block,
    tile,
    stride_cache_block,
    STRIDE_CACHE_TOKEN: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Pointers to a tile's keys, [BLOCK_N, HEAD_DIM_PAD]; what does not change from tile to tile is in `row_ptrs`."""
    start = block * stride_cache_block
    if BLOCK_N % BLOCK_SIZE == 0:
        return row_ptrs + start[:, None]
    elif BLOCK_SIZE % BLOCK_N == 0:
        return row_ptrs + (start + (tile * BLOCK_N) % BLOCK_SIZE * STRIDE_CACHE_TOKEN)
    else:
        tokens = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        return row_ptrs + (start + tokens % BLOCK_SIZE * STRIDE_CACHE_TOKEN)[:, None]


@triton.jit
def attend(
    acc,
    best,
    weight,
    q,
    positions,
    row_ptrs,
    table_ptr,
    begin,
    end,
    seq_len,
    scale_log2,
    stride_cache_block,
    STRIDE_CACHE_KV: tl.constexpr,
    STRIDE_CACHE_TOKEN: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_DIM_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    MASKED: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    """Take the tiles ``begin:end`` of keys into the running softmax; MASKED where an edge cuts them."""
    dims = tl.arange(0, HEAD_DIM_PAD)
    offsets = tl.arange(0, BLOCK_N)
    # Block ids are fetched a tile ahead, so that the loads of K and V never wait for them and fill the pipeline.
    next_block = block_ids(table_ptr, begin, seq_len, BLOCK_SIZE, BLOCK_N)
    for tile in tl.range(begin, end, num_stages=NUM_STAGES):
        tokens = tile * BLOCK_N + offsets
        block = next_block.to(tl.int64)
        next_block = block_ids(table_ptr, tile + 1, seq_len, BLOCK_SIZE, BLOCK_N)
        k_ptrs = _key_pointers(row_ptrs, block, tile, stride_cache_block, STRIDE_CACHE_TOKEN, BLOCK_SIZE, BLOCK_N)
        if MASKED:
            # Values past the context may be anything, NaN included, and 0 * NaN is NaN.
            mask = (tokens[:, None] < seq_len) & (dims[None, :] < HEAD_DIM)
            k = tl.load(k_ptrs, mask=mask, other=0.0)
            v = tl.load(k_ptrs + STRIDE_CACHE_KV, mask=mask, other=0.0)
        elif HEAD_DIM == HEAD_DIM_PAD:
            k = tl.load(k_ptrs)
            v = tl.load(k_ptrs + STRIDE_CACHE_KV)
        else:
            k = tl.load(k_ptrs, mask=dims[None, :] < HEAD_DIM, other=0.0)
            v = tl.load(k_ptrs + STRIDE_CACHE_KV, mask=dims[None, :] < HEAD_DIM, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        if SOFT_CAP > 0:
            scores = soft_capped(scores, scale_log2, SOFT_CAP)
            factor = 1.0
        else:
            factor = scale_log2
        if MASKED:
            visible = tokens[None, :] <= positions[:, None]
            if WINDOW > 0:
                visible = visible & (tokens[None, :] > positions[:, None] - WINDOW)
            scores = tl.where(visible, scores, float("-inf"))
        new_best = tl.maximum(best, tl.max(scores, 1) * factor)
        if WINDOW > 0:
            # A row may see no key of the first tiles.
            shift = tl.where(new_best == float("-inf"), 0.0, new_best)
        else:
            shift = new_best
        fade = tl.exp2(best - shift)
        probs = tl.exp2(scores * factor - shift[:, None])
        weight = weight * fade + tl.sum(probs, 1)
        acc = acc * fade[:, None]
        acc = tl.dot(probs.to(v.dtype), v, acc, input_precision="ieee")
        best = new_best
    return acc, best, weight


@quick_jit(do_not_specialize=["first_request", "num_requests", "stride_table"])
def _prefill_kernel(
    out_ptr,
    q_ptr,
    cache_ptr,
    block_table_ptr,
    query_start_loc_ptr,
    seq_lens_ptr,
    scale_log2,
    first_request,
    num_requests,
    stride_out_token,
    stride_out_head,
    stride_q_token,
    stride_q_head,
    stride_cache_block,
    stride_table,
    STRIDE_CACHE_KV: tl.constexpr,
    STRIDE_CACHE_TOKEN: tl.constexpr,
    STRIDE_CACHE_HEAD: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_DIM_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ROWS: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    head = tl.program_id(0)
    # A request's last tiles have the most keys: start them first, so that the light ones fill the end.
    program = tl.num_programs(1) - 1 - tl.program_id(1)

    # All of the batch's bounds are loaded at once and this request's picked in registers: a second round of
    # loads would wait for the first.
    rows = tl.arange(0, ROWS)
    known = rows < num_requests
    starts = tl.load(query_start_loc_ptr + first_request + rows, mask=known, other=0)
    stops = tl.load(query_start_loc_ptr + first_request + 1 + rows, mask=known, other=0)
    contexts = tl.load(seq_lens_ptr + first_request + rows, mask=known, other=0)
    base = tl.load(query_start_loc_ptr + first_request)
    tile_starts = (starts - base) // BLOCK_M + rows
    row = tl.sum((known & (tile_starts <= program)).to(tl.int32), 0) - 1
    query_start = tl.sum(tl.where(rows == row, starts, 0), 0)
    query_len = tl.sum(tl.where(rows == row, stops, 0), 0) - query_start
    seq_len = tl.sum(tl.where(rows == row, contexts, 0), 0)
    first = (program - ((query_start - base) // BLOCK_M + row)) * BLOCK_M
    if first >= query_len:
        return
    first_position = seq_len - query_len + first
    last_position = tl.minimum(first_position + BLOCK_M, seq_len) - 1

    queries = tl.arange(0, BLOCK_M)
    dims = tl.arange(0, HEAD_DIM_PAD)
    positions = first_position + queries
    q_mask = (first + queries[:, None] < query_len) & (dims[None, :] < HEAD_DIM)
    q_rows = (query_start + first + queries).to(tl.int64)
    q = tl.load(q_ptr + q_rows[:, None] * stride_q_token + head * stride_q_head + dims[None, :], mask=q_mask, other=0.0)
    k_head_ptr = cache_ptr + (head // GROUP) * STRIDE_CACHE_HEAD
    row_ptrs = k_head_ptr + dims[None, :]
    if BLOCK_N % BLOCK_SIZE == 0:
        row_ptrs += (tl.arange(0, BLOCK_N) % BLOCK_SIZE * STRIDE_CACHE_TOKEN)[:, None]
    elif BLOCK_SIZE % BLOCK_N == 0:
        row_ptrs += (tl.arange(0, BLOCK_N) * STRIDE_CACHE_TOKEN)[:, None]
    table_ptr = block_table_ptr + (first_request + row).to(tl.int64) * stride_table

    acc = tl.zeros([BLOCK_M, HEAD_DIM_PAD], tl.float32)
    best = tl.full([BLOCK_M], float("-inf"), tl.float32)
    weight = tl.zeros([BLOCK_M], tl.float32)
    # Tiles low:whole_low are cut by the window, those from whole_high on by the causal edge.
    whole_low = 0
    whole_high = (first_position + 1) // BLOCK_N
    high = tl.cdiv(last_position + 1, BLOCK_N)
    if WINDOW > 0:
        low = tl.maximum(first_position - WINDOW + 1, 0) // BLOCK_N
        whole_low = tl.minimum(tl.cdiv(tl.maximum(last_position - WINDOW + 1, 0), BLOCK_N), high)
        whole_high = tl.maximum(whole_high, whole_low)
        acc, best, weight = attend(
            acc, best, weight, q, positions, row_ptrs, table_ptr, low, whole_low, seq_len, scale_log2,
            stride_cache_block, STRIDE_CACHE_KV, STRIDE_CACHE_TOKEN, HEAD_DIM, HEAD_DIM_PAD, BLOCK_SIZE, BLOCK_N,
            WINDOW, SOFT_CAP, True, NUM_STAGES,
        )  # fmt: skip

    acc, best, weight = attend(
        acc, best, weight, q, positions, row_ptrs, table_ptr, whole_low, whole_high, seq_len, scale_log2,
        stride_cache_block, STRIDE_CACHE_KV, STRIDE_CACHE_TOKEN, HEAD_DIM, HEAD_DIM_PAD, BLOCK_SIZE, BLOCK_N,
        WINDOW, SOFT_CAP, False, NUM_STAGES,
    )  # fmt: skip
    acc, best, weight = attend(
        acc, best, weight, q, positions, row_ptrs, table_ptr, whole_high, high, seq_len, scale_log2,
        stride_cache_block, STRIDE_CACHE_KV, STRIDE_CACHE_TOKEN, HEAD_DIM, HEAD_DIM_PAD, BLOCK_SIZE, BLOCK_N,
        WINDOW, SOFT_CAP, True, NUM_STAGES,
    )  # fmt: skip
    tl.store(
        out_ptr + q_rows[:, None] * stride_out_token + head * stride_out_head + dims[None, :],
        (acc * (1.0 / weight)[:, None]).to(out_ptr.dtype.element_ty),
        mask=q_mask,
    )


def prefill_attention(
    q: torch.Tensor,
    layer_cache: torch.Tensor,
    block_table: torch.Tensor,
    query_start_loc: torch.Tensor,
    seq_lens: torch.Tensor,
    out: torch.Tensor,
    *,
    first_request: int,
    num_tokens: int,
    scale: float,
    sliding_window: int | None,
    soft_cap: float | None,
    config: PrefillConfig,
) -> None:
    """Causal attention of ragged query chunks, each at the end of its context, from one request on; writes `out`.

    Args:
        q: [tokens of the step, num_heads, head_dim], indexed by `query_start_loc`; contiguous last dimension.
        layer_cache: [num_blocks, 2, block_size, num_kv_heads, head_dim]; contiguous last dimension.
        block_table: int32 [requests of the step, max_blocks]; entries past a request's context are not read.
        query_start_loc: int32 [requests of the step + 1].
        seq_lens: int32 [requests of the step]: context, the chunk included.
        out: like q; only the rows of the requests from `first_request` on are written.
        first_request: requests before it are not computed.
        num_tokens: query tokens of the requests from `first_request` on, or an upper bound.
        scale: multiplies the scores; positive.
        sliding_window: keys that a query sees, itself included; None means all.
        soft_cap: as in `LayerSpec`.
        config: tile sizes and the like.
    """
    num_requests = seq_lens.shape[0] - first_request
    num_heads, head_dim = q.shape[1], q.shape[2]
    block_size, num_kv_heads = layer_cache.shape[2], layer_cache.shape[3]
    _prefill_kernel[(num_heads, num_tokens // config.block_m + num_requests)](
        out,
        q,
        layer_cache,
        block_table,
        query_start_loc,
        seq_lens,
        scale * LOG2_E,
        first_request,
        num_requests,
        out.stride(0),
        out.stride(1),
        q.stride(0),
        q.stride(1),
        layer_cache.stride(0),
        block_table.stride(0),
        STRIDE_CACHE_KV=layer_cache.stride(1),
        STRIDE_CACHE_TOKEN=layer_cache.stride(2),
        STRIDE_CACHE_HEAD=layer_cache.stride(3),
        GROUP=num_heads // num_kv_heads,
        HEAD_DIM=head_dim,
        HEAD_DIM_PAD=triton.next_power_of_2(head_dim),
        BLOCK_SIZE=block_size,
        BLOCK_M=config.block_m,
        BLOCK_N=config.block_n,
        ROWS=chunk_class(num_requests),
        WINDOW=sliding_window or 0,
        SOFT_CAP=soft_cap or 0.0,
        NUM_STAGES=config.num_stages,
        num_warps=config.num_warps,
    )
