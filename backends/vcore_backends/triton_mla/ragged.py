"""Ragged attention over keys and values at hand: causal, aligned to the bottom right, or of every key.

One program computes ``BLOCK_M`` queries of one request for one head. Request i's query tiles start at
``query_start_loc[i] // BLOCK_M + i``; consecutive requests are at least their tile count apart, so the grid's size
follows from the number of queries and requests, without knowing lengths, and a program finds its request by counting.
Keys are walked in tiles of ``BLOCK_N``; only tiles that the causal edge or the end of the keys cuts are masked. The
part of queries and keys with position is a product of its own, so that no tile is padded from 192 to 256. Softmax is
online (FlashAttention-2; Dao, 2023, algorithm 1), in base 2.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from vcore.interfaces.attention import LatentSpec, RaggedBatch
from vcore.ops.triton.quick_jit import quick_jit
from vcore_backends.triton_mla.configs import RaggedConfig
from vcore_backends.triton_paged.tiles import LOG2_E, chunk_class

__all__ = ["ragged_attention"]

MIN_DOT_SIZE = 16
"""The least size that the matrix unit takes."""


@triton.jit
def _attend(
    acc,
    best,
    weight,
    q_nope,
    q_rope,
    positions,
    k_rows,
    v_rows,
    begin,
    end,
    kv_len,
    scale_log2,
    stride_k_token,
    stride_v_token,
    NOPE: tl.constexpr,
    NOPE_PAD: tl.constexpr,
    ROPE: tl.constexpr,
    ROPE_PAD: tl.constexpr,
    V_DIM: tl.constexpr,
    V_PAD: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MASKED: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    """Take the tiles ``begin:end`` of keys into the running softmax; MASKED where an edge cuts them."""
    offsets = tl.arange(0, BLOCK_N)
    nope_dims = tl.arange(0, NOPE_PAD)
    rope_dims = tl.arange(0, ROPE_PAD)
    v_dims = tl.arange(0, V_PAD)
    k_nope_ptrs = k_rows[:, None] + nope_dims[None, :]
    k_rope_ptrs = k_rows[:, None] + NOPE + rope_dims[None, :]
    v_ptrs = v_rows[:, None] + v_dims[None, :]
    for tile in tl.range(begin, end, num_stages=NUM_STAGES):
        k_start = tl.cast(tile, tl.int64) * BLOCK_N * stride_k_token
        v_start = tl.cast(tile, tl.int64) * BLOCK_N * stride_v_token
        tokens = tile * BLOCK_N + offsets
        if MASKED:
            inside = (tokens < kv_len)[:, None]
            k_nope = tl.load(k_nope_ptrs + k_start, mask=inside & (nope_dims[None, :] < NOPE), other=0.0)
            k_rope = tl.load(k_rope_ptrs + k_start, mask=inside & (rope_dims[None, :] < ROPE), other=0.0)
            v = tl.load(v_ptrs + v_start, mask=inside & (v_dims[None, :] < V_DIM), other=0.0)
        elif NOPE == NOPE_PAD and ROPE == ROPE_PAD and V_DIM == V_PAD:
            k_nope = tl.load(k_nope_ptrs + k_start)
            k_rope = tl.load(k_rope_ptrs + k_start)
            v = tl.load(v_ptrs + v_start)
        else:
            k_nope = tl.load(k_nope_ptrs + k_start, mask=nope_dims[None, :] < NOPE, other=0.0)
            k_rope = tl.load(k_rope_ptrs + k_start, mask=rope_dims[None, :] < ROPE, other=0.0)
            v = tl.load(v_ptrs + v_start, mask=v_dims[None, :] < V_DIM, other=0.0)
        scores = tl.dot(q_nope, tl.trans(k_nope), input_precision="ieee")
        scores = tl.dot(q_rope, tl.trans(k_rope), scores, input_precision="ieee")
        if MASKED:
            visible = (tokens[None, :] <= positions[:, None]) & (tokens[None, :] < kv_len)
            scores = tl.where(visible, scores, float("-inf"))
        new_best = tl.maximum(best, tl.max(scores, 1) * scale_log2)
        if MASKED:
            # With more queries than keys, the first see none.
            shift = tl.where(new_best == float("-inf"), 0.0, new_best)
        else:
            shift = new_best
        fade = tl.exp2(best - shift)
        probs = tl.exp2(scores * scale_log2 - shift[:, None])
        weight = weight * fade + tl.sum(probs, 1)
        acc = acc * fade[:, None]
        acc = tl.dot(probs.to(v.dtype), v, acc, input_precision="ieee")
        best = new_best
    return acc, best, weight


@quick_jit(
    do_not_specialize=["num_requests"], do_not_specialize_on_alignment=["query_start_loc_ptr", "kv_start_loc_ptr"]
)
def _ragged_kernel(
    out_ptr,
    lse_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    query_start_loc_ptr,
    kv_start_loc_ptr,
    scale_log2,
    num_requests,
    stride_q_token,
    stride_q_head,
    stride_k_token,
    stride_k_head,
    stride_v_token,
    stride_v_head,
    NUM_HEADS: tl.constexpr,
    NOPE: tl.constexpr,
    NOPE_PAD: tl.constexpr,
    ROPE: tl.constexpr,
    ROPE_PAD: tl.constexpr,
    V_DIM: tl.constexpr,
    V_PAD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ROWS: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_LSE: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    head = tl.program_id(1)
    # A request's last tiles have the most keys: start them first, so that the light ones fill the end.
    program = tl.num_programs(0) - 1 - tl.program_id(0)

    # All of the batch's bounds are loaded at once and this request's picked in registers: a second round of
    # loads would wait for the first.
    rows = tl.arange(0, ROWS)
    listed = rows < num_requests
    starts = tl.load(query_start_loc_ptr + rows, mask=listed, other=0)
    stops = tl.load(query_start_loc_ptr + 1 + rows, mask=listed, other=0)
    kv_starts = tl.load(kv_start_loc_ptr + rows, mask=listed, other=0)
    kv_stops = tl.load(kv_start_loc_ptr + 1 + rows, mask=listed, other=0)
    base = tl.load(query_start_loc_ptr)
    tile_starts = (starts - base) // BLOCK_M + rows
    row = tl.sum((listed & (tile_starts <= program)).to(tl.int32), 0) - 1
    query_start = tl.sum(tl.where(rows == row, starts, 0), 0)
    query_len = tl.sum(tl.where(rows == row, stops, 0), 0) - query_start
    kv_start = tl.sum(tl.where(rows == row, kv_starts, 0), 0)
    kv_len = tl.sum(tl.where(rows == row, kv_stops, 0), 0) - kv_start
    first = (program - ((query_start - base) // BLOCK_M + row)) * BLOCK_M
    if first >= query_len:
        return

    queries = first + tl.arange(0, BLOCK_M)
    nope_dims = tl.arange(0, NOPE_PAD)
    rope_dims = tl.arange(0, ROPE_PAD)
    v_dims = tl.arange(0, V_PAD)
    known = queries < query_len
    q_rows = (query_start + queries).to(tl.int64)
    q_ptrs = q_ptr + q_rows[:, None] * stride_q_token + head * stride_q_head
    q_nope = tl.load(q_ptrs + nope_dims[None, :], mask=known[:, None] & (nope_dims[None, :] < NOPE), other=0.0)
    q_rope = tl.load(q_ptrs + NOPE + rope_dims[None, :], mask=known[:, None] & (rope_dims[None, :] < ROPE), other=0.0)
    kv_rows = (kv_start + tl.arange(0, BLOCK_N)).to(tl.int64)
    k_rows = k_ptr + kv_rows * stride_k_token + head * stride_k_head
    v_rows = v_ptr + kv_rows * stride_v_token + head * stride_v_head

    acc = tl.zeros([BLOCK_M, V_PAD], tl.float32)
    best = tl.full([BLOCK_M], float("-inf"), tl.float32)
    weight = tl.zeros([BLOCK_M], tl.float32)
    if CAUSAL:
        positions = kv_len - query_len + queries  # negative: it sees no key
        first_position = kv_len - query_len + first
        whole = tl.maximum(first_position + 1, 0) // BLOCK_N
        end = tl.cdiv(tl.maximum(tl.minimum(first_position + BLOCK_M, kv_len), 0), BLOCK_N)
    else:
        positions = tl.full([BLOCK_M], 0, tl.int32) + kv_len
        whole = kv_len // BLOCK_N
        end = tl.cdiv(kv_len, BLOCK_N)
    acc, best, weight = _attend(
        acc, best, weight, q_nope, q_rope, positions, k_rows, v_rows, 0, whole, kv_len, scale_log2, stride_k_token,
        stride_v_token, NOPE, NOPE_PAD, ROPE, ROPE_PAD, V_DIM, V_PAD, BLOCK_N, False, NUM_STAGES,
    )  # fmt: skip
    acc, best, weight = _attend(
        acc, best, weight, q_nope, q_rope, positions, k_rows, v_rows, whole, end, kv_len, scale_log2, stride_k_token,
        stride_v_token, NOPE, NOPE_PAD, ROPE, ROPE_PAD, V_DIM, V_PAD, BLOCK_N, True, NUM_STAGES,
    )  # fmt: skip
    share = tl.where(weight == 0.0, 0.0, 1.0 / weight)
    places = q_rows * NUM_HEADS + head
    tl.store(
        out_ptr + places[:, None] * V_DIM + v_dims[None, :],
        (acc * share[:, None]).to(out_ptr.dtype.element_ty),
        mask=known[:, None] & (v_dims[None, :] < V_DIM),
    )
    if HAS_LSE:
        tl.store(lse_ptr + places, (best + tl.log2(weight)) * 0.6931471805599453, mask=known)


def ragged_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    batch: RaggedBatch,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    *,
    spec: LatentSpec,
    config: RaggedConfig,
) -> None:
    """Writes `out` and, if given, `lse`, wherever a request of `batch` has a query.

    Args:
        q: [num_queries, num_heads, qk_head_dim]; the last dimension is contiguous.
        k: [num_keys, num_heads, qk_head_dim]; likewise.
        v: [num_keys, num_heads, v_head_dim]; likewise.
        batch: whose queries and keys are whose.
        out: [num_queries, num_heads, v_head_dim], contiguous.
        lse: float32 [num_queries, num_heads], contiguous; natural logarithms.
        spec: the layer; its scale is positive.
        config: tile sizes and the like.
    """
    num_tiles = q.shape[0] // config.block_m + batch.num_requests
    _ragged_kernel[(num_tiles, spec.num_heads)](
        out,
        lse,
        q,
        k,
        v,
        batch.query_start_loc,
        batch.kv_start_loc,
        spec.scale * LOG2_E,
        batch.num_requests,
        q.stride(0),
        q.stride(1),
        k.stride(0),
        k.stride(1),
        v.stride(0),
        v.stride(1),
        NUM_HEADS=spec.num_heads,
        NOPE=spec.qk_nope_head_dim,
        NOPE_PAD=max(MIN_DOT_SIZE, triton.next_power_of_2(spec.qk_nope_head_dim)),
        ROPE=spec.qk_rope_head_dim,
        ROPE_PAD=max(MIN_DOT_SIZE, triton.next_power_of_2(spec.qk_rope_head_dim)),
        V_DIM=spec.v_head_dim,
        V_PAD=max(MIN_DOT_SIZE, triton.next_power_of_2(spec.v_head_dim)),
        BLOCK_M=config.block_m,
        BLOCK_N=config.block_n,
        ROWS=chunk_class(batch.num_requests),
        CAUSAL=batch.causal,
        HAS_LSE=lse is not None,
        NUM_STAGES=config.num_stages,
        num_warps=config.num_warps,
    )
