"""Split-KV decode over a paged cache.

A KV head's context, over all requests of the batch, is one line of tiles of ``BLOCK_N`` tokens:

    request 0          request 1   request 2
    [t t t t t t t t]  [t t]       [t t t t t]
    |---- p0 ----|---- p1 ----|---- p2 ----|--      equal shares, whatever the lengths

Each program takes an equal, contiguous share of that line, so ragged batches are balanced; the shares
follow from `seq_lens` on the device, the number of programs from shapes alone, so a CUDA graph that
was captured at one set of lengths serves all. A request that lies within one share is written
straight to the output. Otherwise each program leaves a normalised partial result and the logarithm
of its weight (LSE, base 2), and `merge_kernel` merges them (FlashDecoding; Dao et al., 2023). The
partial of program p for request r lies in row ``p + r``: from one partial to the next along the
line exactly one of the two grows by one, so rows are unique and a request's rows are adjacent.

Where requests share a prefix, `shared_prefix` attends it once for all, their lines begin behind it, and they leave a
partial result even if it lies within one share.

All query heads that share a KV head form one tile, so that K and V are read once (GQA packing).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from vcore.ops.triton.quick_jit import quick_jit
from vcore_backends.triton_paged.configs import DecodeConfig
from vcore_backends.triton_paged.merge import merge_kernel
from vcore_backends.triton_paged.shared_prefix import SharedPrefix
from vcore_backends.triton_paged.tiles import LOG2_E, block_ids, line_of_tiles, row_class, shared_length, soft_capped

__all__ = ["decode_attention", "partial_rows"]

MIN_DOT_ROWS = 16
"""The least number of rows that the matrix unit takes."""
MAX_PROGRAMS = 1024
"""Programs a KV head, at most."""


@quick_jit(do_not_specialize=["num_requests", "stride_table"], do_not_specialize_on_alignment=["num_shared_blocks_ptr"])
def _decode_kernel(
    out_ptr,
    partial_ptr,
    partial_lse_ptr,
    q_ptr,
    cache_ptr,
    block_table_ptr,
    seq_lens_ptr,
    num_shared_blocks_ptr,
    scale_log2,
    num_requests,
    max_programs,
    stride_out_token,
    stride_out_head,
    stride_q_token,
    stride_q_head,
    stride_cache_block,
    stride_table,
    STRIDE_CACHE_KV: tl.constexpr,
    STRIDE_CACHE_TOKEN: tl.constexpr,
    STRIDE_CACHE_HEAD: tl.constexpr,
    NUM_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_PAD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_DIM_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ROWS: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    NUM_STAGES: tl.constexpr,
    SHARED_ALIGN: tl.constexpr,
    EARLY: tl.constexpr,
):
    if EARLY:
        gdc_launch_dependents()  # the merging kernel may take its place now; it waits before it reads
        gdc_wait()
    kv_head = tl.program_id(0)
    program = tl.program_id(1)

    shared_len = 0
    if SHARED_ALIGN > 0:
        shared_len = shared_length(num_shared_blocks_ptr, BLOCK_SIZE, SHARED_ALIGN)
    ends, total = line_of_tiles(seq_lens_ptr, num_requests, ROWS, BLOCK_N, WINDOW, shared_len, SHARED_ALIGN > 0)
    programs = tl.minimum(max_programs, total)
    if program >= programs:
        return
    at = (total.to(tl.int64) * program // programs).to(tl.int32)
    stop = (total.to(tl.int64) * (program + 1) // programs).to(tl.int32)

    heads = tl.arange(0, GROUP_PAD)
    dims = tl.arange(0, HEAD_DIM_PAD)
    offsets = tl.arange(0, BLOCK_N)
    q_mask = (heads[:, None] < GROUP) & (dims[None, :] < HEAD_DIM)
    k_head_ptr = cache_ptr + kv_head * STRIDE_CACHE_HEAD

    while at < stop:
        row = tl.sum((ends <= at).to(tl.int32), 0)
        row_begin = tl.max(tl.where(ends <= at, ends, 0), 0)
        row_end = tl.min(tl.where(ends > at, ends, total), 0)
        segment_end = tl.minimum(stop, row_end)
        seq_len = tl.load(seq_lens_ptr + row)
        first_key = 0
        first_tile = at - row_begin
        if WINDOW > 0:
            first_key = tl.maximum(seq_len - WINDOW, 0)
            first_tile += first_key // BLOCK_N
        if SHARED_ALIGN > 0:
            num_skipped = tl.where(seq_len > shared_len, shared_len // BLOCK_N, 0)
            first_tile += num_skipped
        last_tile = first_tile + segment_end - at

        q = tl.load(
            q_ptr + row * stride_q_token + (kv_head * GROUP + heads[:, None]) * stride_q_head + dims[None, :],
            mask=q_mask,
            other=0.0,
        )
        table_ptr = block_table_ptr + row.to(tl.int64) * stride_table
        best = tl.full([GROUP_PAD], float("-inf"), tl.float32)
        weight = tl.zeros([GROUP_PAD], tl.float32)
        acc = tl.zeros([GROUP_PAD, HEAD_DIM_PAD], tl.float32)

        # Block ids are fetched a tile ahead, so that the loads of K and V never wait for them and fill the pipeline.
        next_block = block_ids(table_ptr, first_tile, seq_len, BLOCK_SIZE, BLOCK_N)
        for tile in tl.range(first_tile, last_tile, num_stages=NUM_STAGES):
            tokens = tile * BLOCK_N + offsets
            valid = tokens < seq_len
            block = next_block.to(tl.int64)
            next_block = block_ids(table_ptr, tile + 1, seq_len, BLOCK_SIZE, BLOCK_N)
            places = block * stride_cache_block + (tokens % BLOCK_SIZE) * STRIDE_CACHE_TOKEN
            k_ptrs = k_head_ptr + places[:, None] + dims[None, :]
            mask = valid[:, None] & (dims[None, :] < HEAD_DIM)
            k = tl.load(k_ptrs, mask=mask, other=0.0)
            v = tl.load(k_ptrs + STRIDE_CACHE_KV, mask=mask, other=0.0)
            scores = tl.dot(q, tl.trans(k), input_precision="ieee")
            if SOFT_CAP > 0:
                scores = soft_capped(scores, scale_log2, SOFT_CAP)
            else:
                scores = scores * scale_log2
            if WINDOW > 0:
                valid = valid & (tokens >= first_key)
            scores = tl.where(valid[None, :], scores, float("-inf"))
            # A tile on the line holds a visible key, and all rows see the same ones: `best` is finite.
            new_best = tl.maximum(best, tl.max(scores, 1))
            fade = tl.exp2(best - new_best)
            probs = tl.exp2(scores - new_best[:, None])
            weight = weight * fade + tl.sum(probs, 1)
            acc = acc * fade[:, None]
            acc = tl.dot(probs.to(v.dtype), v, acc, input_precision="ieee")
            best = new_best

        result = acc / weight[:, None]
        is_written = segment_end - at == row_end - row_begin
        if SHARED_ALIGN > 0:
            is_written = is_written & (num_skipped == 0)
        if is_written:
            tl.store(
                out_ptr + row * stride_out_token + (kv_head * GROUP + heads[:, None]) * stride_out_head + dims[None, :],
                result.to(out_ptr.dtype.element_ty),
                mask=q_mask,
            )
        else:
            place = (program + row).to(tl.int64) * NUM_HEADS + kv_head * GROUP + heads
            tl.store(partial_ptr + place[:, None] * HEAD_DIM + dims[None, :], result, mask=q_mask)
            tl.store(partial_lse_ptr + place, best + tl.log2(weight), mask=heads < GROUP)
        at = segment_end


def num_programs(config: DecodeConfig, num_kv_heads: int, num_sms: int) -> int:
    """Programs a KV head: as many as fill the device, from shapes alone."""
    return min(MAX_PROGRAMS, max(1, round(config.programs_per_sm * num_sms / num_kv_heads)))


def partial_rows(config: DecodeConfig, num_requests: int, num_kv_heads: int, num_sms: int) -> int:
    """Rows of the workspace that `decode_attention` may write."""
    return num_programs(config, num_kv_heads, num_sms) + num_requests


def decode_attention(
    q: torch.Tensor,
    layer_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    out: torch.Tensor,
    partial: torch.Tensor,
    partial_lse: torch.Tensor,
    *,
    scale: float,
    sliding_window: int | None,
    soft_cap: float | None,
    config: DecodeConfig,
    num_sms: int,
    early: bool,
    shared: SharedPrefix | None = None,
) -> None:
    """Attention of one query token a request over its paged context; writes `out`.

    Args:
        q: [num_requests, num_heads, head_dim]; the last dimension is contiguous.
        layer_cache: [num_blocks, 2, block_size, num_kv_heads, head_dim]; the last dimension is contiguous.
        block_table: int32 [num_requests, max_blocks]; entries past a request's context are not read.
        seq_lens: int32 [num_requests]; 0 gives a row of zeros.
        out: like q.
        partial: float32 [at least `partial_rows`, num_heads, head_dim], contiguous; its content is lost.
        partial_lse: float32 [at least `partial_rows`, num_heads], contiguous; its content is lost.
        scale: multiplies the scores; positive.
        sliding_window: keys that a query sees, itself included; None means all.
        soft_cap: as in `LayerSpec`.
        config: tile sizes and the like.
        num_sms: multiprocessors of the device.
        early: start both kernels early (programmatic dependent launch; compute capability 9.0).
        shared: what `attend_shared_prefix` has left of the prefix that requests share; None: every request reads
            its own. Only without a window.
    """
    num_requests, num_heads, head_dim = q.shape
    block_size, num_kv_heads = layer_cache.shape[2], layer_cache.shape[3]
    programs = num_programs(config, num_kv_heads, num_sms)
    group = num_heads // num_kv_heads
    common = {
        "NUM_HEADS": num_heads,
        "HEAD_DIM": head_dim,
        "HEAD_DIM_PAD": triton.next_power_of_2(head_dim),
        "BLOCK_N": config.block_n,
        "ROWS": row_class(num_requests),
        "WINDOW": sliding_window or 0,
        "BLOCK_SIZE": block_size,
        "SHARED_ALIGN": 0 if shared is None else shared.align(config.block_n),
        "EARLY": early,
    }
    _decode_kernel[(num_kv_heads, programs)](
        out,
        partial,
        partial_lse,
        q,
        layer_cache,
        block_table,
        seq_lens,
        None if shared is None else shared.num_blocks,
        scale * LOG2_E,
        num_requests,
        programs,
        out.stride(0),
        out.stride(1),
        q.stride(0),
        q.stride(1),
        layer_cache.stride(0),
        block_table.stride(0),
        STRIDE_CACHE_KV=layer_cache.stride(1),
        STRIDE_CACHE_TOKEN=layer_cache.stride(2),
        STRIDE_CACHE_HEAD=layer_cache.stride(3),
        GROUP=group,
        GROUP_PAD=max(MIN_DOT_ROWS, triton.next_power_of_2(group)),
        SOFT_CAP=soft_cap or 0.0,
        NUM_STAGES=config.num_stages,
        num_warps=config.num_warps,
        **({"launch_pdl": True} if early else {}),
        **common,
    )
    merge_kernel[(num_heads, num_requests)](
        out,
        partial,
        partial_lse,
        None if shared is None else shared.partial,
        None if shared is None else shared.partial_lse,
        seq_lens,
        None if shared is None else shared.num_blocks,
        num_requests,
        programs,
        0 if shared is None else shared.num_splits,
        out.stride(0),
        out.stride(1),
        BLOCK_P=config.merge_block,
        SHARED_BLOCK_N=0 if shared is None else shared.config.block_n,
        num_warps=config.merge_warps,
        **({"launch_pdl": True} if early else {}),
        **common,
    )
