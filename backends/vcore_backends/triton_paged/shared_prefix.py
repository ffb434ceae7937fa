"""Attention over a prefix that the decode rows of a step share: its keys and values are read once for all of them.

The queries of all requests, query head after query head of a KV head, form tiles of ``BLOCK_M``; the prefix is split
among as many programs as fill the device (Hydragen; Juravsky et al., 2024, arXiv:2402.05099, section 3.2):

    request            0   0   1   1   2   2   3   3          2 query heads a KV head
    query tile         |------ 0 ------|------ 1 ------|
    split 0, 1, 2      one program each, a third of the prefix's tiles

Each leaves a normalised partial result and the logarithm of its weight (LSE, base 2); that of split s for request r
lies in row ``s * num_requests + r``. The decode kernel goes on behind the prefix, and its merging kernel takes in both.

How long the prefix is, the kernels read on the device, so that a captured CUDA graph serves any. They agree on whole
tiles of each of them. A request whose context is not longer takes no part: so do the rows that pad a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from vcore.ops.triton.quick_jit import quick_jit
from vcore_backends.triton_paged.configs import SharedConfig, shared_config
from vcore_backends.triton_paged.prefill import attend
from vcore_backends.triton_paged.tiles import LOG2_E, row_class, shared_length

__all__ = ["SharedPrefix", "attend_shared_prefix", "num_shared_splits"]

MAX_SPLITS = 64
"""Parts that the prefix is split into, at most: they have to be merged."""


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """Partial results over a shared prefix, for the kernels that compute and merge the rest."""

    num_blocks: torch.Tensor
    """int32 [1]: cache blocks of the prefix."""
    partial: torch.Tensor
    """float32 [at least num_splits * num_requests, num_heads, head_dim], contiguous."""
    partial_lse: torch.Tensor
    """float32 [at least num_splits * num_requests, num_heads], contiguous."""
    num_splits: int
    config: SharedConfig

    def align(self, block_n: int) -> int:
        """The tokens of which the prefix has a multiple, if the decode kernel's tiles have `block_n`."""
        return max(self.config.block_n, block_n)  # both are powers of two


@quick_jit(
    do_not_specialize=["num_requests", "num_splits", "stride_table"],
    do_not_specialize_on_alignment=["num_shared_blocks_ptr"],
)
def _shared_prefix_kernel(
    partial_ptr,
    partial_lse_ptr,
    q_ptr,
    cache_ptr,
    block_table_ptr,
    seq_lens_ptr,
    num_shared_blocks_ptr,
    scale_log2,
    num_requests,
    num_splits,
    stride_q_token,
    stride_q_head,
    stride_cache_block,
    stride_table,
    STRIDE_CACHE_KV: tl.constexpr,
    STRIDE_CACHE_TOKEN: tl.constexpr,
    STRIDE_CACHE_HEAD: tl.constexpr,
    NUM_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_DIM_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ALIGN: tl.constexpr,
    ROWS: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    kv_head = tl.program_id(0)
    split = tl.program_id(2)
    shared_len = shared_length(num_shared_blocks_ptr, BLOCK_SIZE, ALIGN)
    num_tiles = shared_len // BLOCK_N
    used = tl.minimum(num_splits, num_tiles)
    if split >= used:
        return
    rows = tl.arange(0, ROWS)
    contexts = tl.load(seq_lens_ptr + rows, mask=rows < num_requests, other=0)
    # Any request that takes part knows the prefix's blocks.
    leader = tl.min(tl.where(contexts > shared_len, rows, ROWS), 0)
    if leader == ROWS:
        return

    queries = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    requests = queries // GROUP
    heads = kv_head * GROUP + queries % GROUP
    takes_part = tl.load(seq_lens_ptr + requests, mask=requests < num_requests, other=0) > shared_len
    dims = tl.arange(0, HEAD_DIM_PAD)
    mask = takes_part[:, None] & (dims[None, :] < HEAD_DIM)
    q_places = requests.to(tl.int64) * stride_q_token + heads * stride_q_head
    q = tl.load(q_ptr + q_places[:, None] + dims[None, :], mask=mask, other=0.0)

    row_ptrs = cache_ptr + kv_head * STRIDE_CACHE_HEAD + dims[None, :]
    if BLOCK_N % BLOCK_SIZE == 0:
        row_ptrs += (tl.arange(0, BLOCK_N) % BLOCK_SIZE * STRIDE_CACHE_TOKEN)[:, None]
    elif BLOCK_SIZE % BLOCK_N == 0:
        row_ptrs += (tl.arange(0, BLOCK_N) * STRIDE_CACHE_TOKEN)[:, None]
    acc = tl.zeros([BLOCK_M, HEAD_DIM_PAD], tl.float32)
    best = tl.full([BLOCK_M], float("-inf"), tl.float32)
    weight = tl.zeros([BLOCK_M], tl.float32)
    acc, best, weight = attend(
        acc, best, weight, q, queries, row_ptrs, block_table_ptr + leader.to(tl.int64) * stride_table,
        num_tiles * split // used, num_tiles * (split + 1) // used, shared_len, scale_log2,
        stride_cache_block, STRIDE_CACHE_KV, STRIDE_CACHE_TOKEN, HEAD_DIM, HEAD_DIM_PAD, BLOCK_SIZE, BLOCK_N,
        0, SOFT_CAP, False, NUM_STAGES,
    )  # fmt: skip
    place = (split * num_requests + requests).to(tl.int64) * NUM_HEADS + heads
    tl.store(partial_ptr + place[:, None] * HEAD_DIM + dims[None, :], acc * (1.0 / weight)[:, None], mask=mask)
    tl.store(partial_lse_ptr + place, best + tl.log2(weight), mask=takes_part)


def num_shared_splits(config: SharedConfig, num_queries: int, num_kv_heads: int, num_sms: int) -> int:
    """Parts that the prefix is split into: as many as fill the device, from shapes alone."""
    programs = num_kv_heads * triton.cdiv(num_queries, config.block_m)
    return min(MAX_SPLITS, max(1, config.programs_per_sm * num_sms // programs))


def attend_shared_prefix(
    q: torch.Tensor,
    layer_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    num_shared_blocks: torch.Tensor,
    partial: torch.Tensor,
    partial_lse: torch.Tensor,
    *,
    scale: float,
    soft_cap: float | None,
    decode_block_n: int,
    num_sms: int,
) -> SharedPrefix:
    """Attention of one query token a request over the beginning of its context that all requests have in common.

    Args:
        q: [num_requests, num_heads, head_dim]; the last dimension is contiguous.
        layer_cache: [num_blocks, 2, block_size, num_kv_heads, head_dim]; the last dimension is contiguous.
        block_table: int32 [num_requests, max_blocks].
        seq_lens: int32 [num_requests].
        num_shared_blocks: int32 [1]: how many leading entries of `block_table` are the same for all requests whose
            context is longer; the others take no part.
        partial: float32 [rows, num_heads, head_dim], contiguous; its content is lost.
        partial_lse: float32 [rows, num_heads], contiguous; its content is lost.
        scale: multiplies the scores; positive.
        soft_cap: as in `LayerSpec`.
        decode_block_n: tokens a tile of keys of the decode kernel, which goes on behind the prefix.
        num_sms: multiprocessors of the device.

    Returns:
        What `decode_attention` takes for the same requests.
    """
    num_requests, num_heads, head_dim = q.shape
    block_size, num_kv_heads = layer_cache.shape[2], layer_cache.shape[3]
    group = num_heads // num_kv_heads
    num_queries = num_requests * group
    config = shared_config(itemsize=q.dtype.itemsize, head_dim=head_dim, num_queries=num_queries)
    num_splits = num_shared_splits(config, num_queries, num_kv_heads, num_sms)
    shared = SharedPrefix(num_shared_blocks, partial, partial_lse, num_splits, config)
    _shared_prefix_kernel[(num_kv_heads, triton.cdiv(num_queries, config.block_m), num_splits)](
        partial,
        partial_lse,
        q,
        layer_cache,
        block_table,
        seq_lens,
        num_shared_blocks,
        scale * LOG2_E,
        num_requests,
        num_splits,
        q.stride(0),
        q.stride(1),
        layer_cache.stride(0),
        block_table.stride(0),
        STRIDE_CACHE_KV=layer_cache.stride(1),
        STRIDE_CACHE_TOKEN=layer_cache.stride(2),
        STRIDE_CACHE_HEAD=layer_cache.stride(3),
        NUM_HEADS=num_heads,
        GROUP=group,
        HEAD_DIM=head_dim,
        HEAD_DIM_PAD=triton.next_power_of_2(head_dim),
        BLOCK_SIZE=block_size,
        BLOCK_M=config.block_m,
        BLOCK_N=config.block_n,
        ALIGN=shared.align(decode_block_n),
        ROWS=row_class(num_requests),
        SOFT_CAP=soft_cap or 0.0,
        NUM_STAGES=config.num_stages,
        num_warps=config.num_warps,
    )
    return shared
