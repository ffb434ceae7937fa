"""Split-KV attention over cached latents, in the absorbed form: keys are latents, values their first numbers.

The context of a batch is one line of tiles of ``BLOCK_N`` tokens, a stretch for each row, and a row is a decode
request or a few consecutive queries of a chunk (`QueryTiles`):

    row 0              row 1       row 2
    [t t t t t t t t]  [t t]       [t t t t t]
    |---- p0 ----|---- p1 ----|---- p2 ----|--      equal shares, whatever the lengths

Each program takes an equal, contiguous share of that line, so ragged batches are balanced; the shares follow from
lengths on the device, the number of programs from shapes alone, so a CUDA graph that was captured at one set of
lengths serves all. A row that lies within one share is written straight to the output. Otherwise each program leaves
a normalised partial result and the logarithm of its weight (LSE, base 2), and `merge_kernel` merges them
(FlashDecoding; Dao et al., 2023). Only the first and the last row of a share can be cut, so program p has two places:
``2 p`` for the row that its share begins in, ``2 p + 1`` for another that it ends in.

All heads (or 64 of them) of all queries of a row form one tile of queries, and a tile of latents, which is read
once, is both keys and values. The rotary part of queries and keys is a product of its own, so that no tile is padded
from 576 to 1024.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from vcore.ops.triton.early_start import begin_and_wait
from vcore.ops.triton.quick_jit import quick_jit
from vcore_backends.triton_mla.configs import AbsorbedConfig
from vcore_backends.triton_mla.merge import merge_kernel
from vcore_backends.triton_mla.query_tiles import QueryTiles
from vcore_backends.triton_paged.tiles import LOG2_E, block_ids, line_of_tiles, row_class

__all__ = ["absorbed_attention", "heads_per_tile", "partial_rows", "queries_per_tile"]

MIN_DOT_SIZE = 16
"""The least size that the matrix unit takes."""
MAX_PROGRAMS = 1024
"""Programs for the same heads, at most."""


@triton.jit
def _attend(
    acc,
    best,
    weight,
    q_latent,
    q_rope,
    latent,
    rope,
    last_keys,
    tokens,
    scale_log2,
    KEYS_FIRST: tl.constexpr,
):
    """Take one tile of latents into the running softmax. With KEYS_FIRST scores and `acc` are transposed."""
    if KEYS_FIRST:
        scores = tl.dot(latent, tl.trans(q_latent), input_precision="ieee")  # [BLOCK_N, rows]
        scores = tl.dot(rope, tl.trans(q_rope), scores, input_precision="ieee")
        scores = tl.where(tokens[:, None] <= last_keys[None, :], scores * scale_log2, float("-inf"))
        new_best = tl.maximum(best, tl.max(scores, 0))
    else:
        scores = tl.dot(q_latent, tl.trans(latent), input_precision="ieee")  # [rows, BLOCK_N]
        scores = tl.dot(q_rope, tl.trans(rope), scores, input_precision="ieee")
        scores = tl.where(tokens[None, :] <= last_keys[:, None], scores * scale_log2, float("-inf"))
        new_best = tl.maximum(best, tl.max(scores, 1))
    # The earlier queries of a row may see nothing of its last tile.
    shift = tl.where(new_best == float("-inf"), 0.0, new_best)
    fade = tl.exp2(best - shift)
    if KEYS_FIRST:
        probs = tl.exp2(scores - shift[None, :])
        weight = weight * fade + tl.sum(probs, 0)
        acc = tl.dot(tl.trans(latent), probs.to(latent.dtype), acc * fade[None, :], input_precision="ieee")
    else:
        probs = tl.exp2(scores - shift[:, None])
        weight = weight * fade + tl.sum(probs, 1)
        acc = tl.dot(probs.to(latent.dtype), latent, acc * fade[:, None], input_precision="ieee")
    return acc, new_best, weight


@quick_jit(
    do_not_specialize=["num_rows", "stride_table"],
    do_not_specialize_on_alignment=["requests_ptr", "first_queries_ptr", "num_queries_ptr"],
)
def _absorbed_kernel(
    out_ptr,
    partial_ptr,
    partial_lse_ptr,
    q_ptr,
    cache_ptr,
    block_table_ptr,
    lengths_ptr,
    requests_ptr,
    first_queries_ptr,
    num_queries_ptr,
    scale_log2,
    num_rows,
    max_programs,
    stride_out_token,
    stride_out_head,
    stride_q_token,
    stride_q_head,
    stride_cache_block,
    stride_table,
    STRIDE_CACHE_TOKEN: tl.constexpr,
    NUM_HEADS: tl.constexpr,
    HEADS: tl.constexpr,
    QUERIES: tl.constexpr,
    TILED: tl.constexpr,
    RANK: tl.constexpr,
    RANK_PAD: tl.constexpr,
    ROPE: tl.constexpr,
    ROPE_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS_FIRST: tl.constexpr,
    NUM_STAGES: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin_and_wait(EARLY)
    program = tl.program_id(1)
    ends, total = line_of_tiles(lengths_ptr, num_rows, ROWS, BLOCK_N, 0)
    programs = tl.minimum(max_programs, total)
    if program >= programs:
        return
    share_begin = (total.to(tl.int64) * program // programs).to(tl.int32)
    stop = (total.to(tl.int64) * (program + 1) // programs).to(tl.int32)

    members = tl.arange(0, QUERIES * HEADS)  # of a tile: query by query, the heads of each
    query = members // HEADS
    head = tl.program_id(0) * HEADS + members % HEADS
    latent_dims = tl.arange(0, RANK_PAD)
    rope_dims = tl.arange(0, ROPE_PAD)
    offsets = tl.arange(0, BLOCK_N)

    at = share_begin
    while at < stop:
        row = tl.sum((ends <= at).to(tl.int32), 0)
        row_begin = tl.max(tl.where(ends <= at, ends, 0), 0)
        row_end = tl.min(tl.where(ends > at, ends, total), 0)
        segment_end = tl.minimum(stop, row_end)
        length = tl.load(lengths_ptr + row)
        first_tile = at - row_begin
        last_tile = first_tile + segment_end - at
        if TILED:
            request = tl.load(requests_ptr + row)
            first_query = tl.load(first_queries_ptr + row)
            num_queries = tl.load(num_queries_ptr + row)
        else:
            request, first_query, num_queries = row, row, 1
        known = (head < NUM_HEADS) & (query < num_queries)
        # Members that are none see what the last query does.
        last_keys = length - num_queries + tl.minimum(query, num_queries - 1)

        q_ptrs = q_ptr + (first_query + query).to(tl.int64) * stride_q_token + head * stride_q_head
        q_latent = tl.load(
            q_ptrs[:, None] + latent_dims[None, :], mask=known[:, None] & (latent_dims[None, :] < RANK), other=0.0
        )
        q_rope = tl.load(
            q_ptrs[:, None] + RANK + rope_dims[None, :], mask=known[:, None] & (rope_dims[None, :] < ROPE), other=0.0
        )
        table_ptr = block_table_ptr + request.to(tl.int64) * stride_table
        best = tl.full([QUERIES * HEADS], float("-inf"), tl.float32)
        weight = tl.zeros([QUERIES * HEADS], tl.float32)
        if KEYS_FIRST:
            acc = tl.zeros([RANK_PAD, QUERIES * HEADS], tl.float32)
        else:
            acc = tl.zeros([QUERIES * HEADS, RANK_PAD], tl.float32)

        # Block ids are fetched a tile ahead, so that the loads of latents never wait for them and fill the pipeline.
        next_block = block_ids(table_ptr, first_tile, length, BLOCK_SIZE, BLOCK_N)
        for tile in tl.range(first_tile, last_tile, num_stages=NUM_STAGES):
            tokens = tile * BLOCK_N + offsets
            inside = tokens < length
            block = next_block.to(tl.int64)
            next_block = block_ids(table_ptr, tile + 1, length, BLOCK_SIZE, BLOCK_N)
            places = cache_ptr + block * stride_cache_block + (tokens % BLOCK_SIZE) * STRIDE_CACHE_TOKEN
            # What no token of the context owns may be anything, NaN included, and 0 * NaN is NaN.
            latent = tl.load(
                places[:, None] + latent_dims[None, :],
                mask=inside[:, None] & (latent_dims[None, :] < RANK),
                other=0.0,
            )
            rope = tl.load(
                places[:, None] + RANK + rope_dims[None, :],
                mask=inside[:, None] & (rope_dims[None, :] < ROPE),
                other=0.0,
            )
            acc, best, weight = _attend(
                acc, best, weight, q_latent, q_rope, latent, rope, last_keys, tokens, scale_log2, KEYS_FIRST
            )

        share = tl.where(weight == 0.0, 0.0, 1.0 / weight)
        if segment_end - at == row_end - row_begin:
            out_ptrs = out_ptr + (first_query + query).to(tl.int64) * stride_out_token + head * stride_out_head
            if KEYS_FIRST:
                tl.store(
                    out_ptrs[None, :] + latent_dims[:, None],
                    (acc * share[None, :]).to(out_ptr.dtype.element_ty),
                    mask=known[None, :] & (latent_dims[:, None] < RANK),
                )
            else:
                tl.store(
                    out_ptrs[:, None] + latent_dims[None, :],
                    (acc * share[:, None]).to(out_ptr.dtype.element_ty),
                    mask=known[:, None] & (latent_dims[None, :] < RANK),
                )
        else:
            side = 2 * program + (at > share_begin).to(tl.int32)
            place = (side * QUERIES + query).to(tl.int64) * NUM_HEADS + head
            if KEYS_FIRST:
                tl.store(
                    partial_ptr + place[None, :] * RANK + latent_dims[:, None],
                    acc * share[None, :],
                    mask=known[None, :] & (latent_dims[:, None] < RANK),
                )
            else:
                tl.store(
                    partial_ptr + place[:, None] * RANK + latent_dims[None, :],
                    acc * share[:, None],
                    mask=known[:, None] & (latent_dims[None, :] < RANK),
                )
            tl.store(partial_lse_ptr + place, best + tl.log2(weight), mask=known)
        at = segment_end


def heads_per_tile(config: AbsorbedConfig, num_heads: int) -> int:
    """Heads of one query in a tile."""
    return min(config.rows, triton.next_power_of_2(num_heads))


def queries_per_tile(config: AbsorbedConfig, num_heads: int) -> int:
    """Queries of a request in a tile, of chunks."""
    return config.rows // heads_per_tile(config, num_heads)


def num_programs(config: AbsorbedConfig, num_heads: int, num_sms: int) -> int:
    """Programs for the same heads: together as many as fill the device, from shapes alone."""
    head_tiles = triton.cdiv(num_heads, heads_per_tile(config, num_heads))
    return min(MAX_PROGRAMS, max(1, round(config.programs_per_sm * num_sms / head_tiles)))


def partial_rows(config: AbsorbedConfig, num_heads: int, num_sms: int) -> int:
    """Rows of the workspace that `absorbed_attention` may write."""
    return 2 * num_programs(config, num_heads, num_sms) * queries_per_tile(config, num_heads) * num_heads


def absorbed_attention(
    q: torch.Tensor,
    layer_cache: torch.Tensor,
    block_table: torch.Tensor,
    lengths: torch.Tensor,
    tiles: QueryTiles | None,
    out: torch.Tensor,
    partial: torch.Tensor,
    partial_lse: torch.Tensor,
    *,
    scale: float,
    rank: int,
    config: AbsorbedConfig,
    num_sms: int,
    early: bool,
) -> None:
    """Attention of queries over their paged context of latents; writes `out`.

    Args:
        q: [num_queries, num_heads, latent_dim]; the last dimension is contiguous.
        layer_cache: [num_blocks, block_size, latent_dim]; the last dimension is contiguous.
        block_table: int32 [num_requests, max_blocks]; entries past a request's context are not read.
        lengths: int32 [num_rows]: tokens that each row's last query sees; 0 gives zeros.
        tiles: whose queries the rows are, with the same `lengths`; None: row i is query i of request i.
        out: [num_queries, num_heads, rank]; the last dimension is contiguous. Rows of queries alone are written.
        partial: float32 [at least `partial_rows`, rank], contiguous; its content is lost.
        partial_lse: float32 [at least `partial_rows`], contiguous; its content is lost.
        scale: multiplies the scores; positive.
        rank: numbers of a latent that are its value.
        config: tile sizes and the like.
        num_sms: multiprocessors of the device.
        early: start both kernels early (programmatic dependent launch; compute capability 9.0).
    """
    num_heads, latent_dim = q.shape[1], q.shape[2]
    num_rows = lengths.shape[0]
    heads = heads_per_tile(config, num_heads)
    queries = queries_per_tile(config, num_heads)
    if tiles is None:
        # The rows of a tile that no head fills are padding.
        heads, queries = max(heads, MIN_DOT_SIZE), 1
        table = (lengths, lengths, lengths)
    else:
        table = (tiles.requests, tiles.first_queries, tiles.num_queries)
    programs = num_programs(config, num_heads, num_sms)
    shared = {
        "NUM_HEADS": num_heads,
        "QUERIES": queries,
        "TILED": tiles is not None,
        "RANK": rank,
        "RANK_PAD": max(MIN_DOT_SIZE, triton.next_power_of_2(rank)),
        "BLOCK_N": config.block_n,
        "ROWS": row_class(num_rows),
        "EARLY": early,
    }
    early_launch = {"launch_pdl": True} if early else {}
    _absorbed_kernel[(triton.cdiv(num_heads, heads), programs)](
        out,
        partial,
        partial_lse,
        q,
        layer_cache,
        block_table,
        lengths,
        *table,
        scale * LOG2_E,
        num_rows,
        programs,
        out.stride(0),
        out.stride(1),
        q.stride(0),
        q.stride(1),
        layer_cache.stride(0),
        block_table.stride(0),
        STRIDE_CACHE_TOKEN=layer_cache.stride(1),
        HEADS=heads,
        ROPE=latent_dim - rank,
        ROPE_PAD=max(MIN_DOT_SIZE, triton.next_power_of_2(latent_dim - rank)),
        BLOCK_SIZE=layer_cache.shape[1],
        KEYS_FIRST=config.keys_first,
        NUM_STAGES=config.num_stages,
        num_warps=config.num_warps,
        **early_launch,
        **shared,
    )
    merge_kernel[(num_heads, num_rows * queries)](
        out,
        partial,
        partial_lse,
        lengths,
        *table[1:],
        num_rows,
        programs,
        out.stride(0),
        out.stride(1),
        BLOCK_P=config.merge_block,
        num_warps=config.merge_warps,
        **early_launch,
        **shared,
    )
