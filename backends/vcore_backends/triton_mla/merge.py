"""The kernel that merges the partial results which the kernel of the absorbed form leaves of a split context.

It finds them as that kernel placed them: see the drawing in `absorbed`.
"""

from __future__ import annotations

import triton.language as tl

from vcore.ops.triton.early_start import begin_and_wait
from vcore.ops.triton.quick_jit import quick_jit
from vcore_backends.triton_paged.tiles import line_of_tiles

__all__ = ["merge_kernel"]


@quick_jit(do_not_specialize=["num_rows"], do_not_specialize_on_alignment=["first_queries_ptr", "num_queries_ptr"])
def merge_kernel(
    out_ptr,
    partial_ptr,
    partial_lse_ptr,
    lengths_ptr,
    first_queries_ptr,
    num_queries_ptr,
    num_rows,
    max_programs,
    stride_out_token,
    stride_out_head,
    NUM_HEADS: tl.constexpr,
    QUERIES: tl.constexpr,
    TILED: tl.constexpr,
    RANK: tl.constexpr,
    RANK_PAD: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    EARLY: tl.constexpr,
):
    # All programs wait, those without partials too: what is launched next waits for this kernel alone, and
    # must not start before the kernel before it has written its rows.
    begin_and_wait(EARLY)
    head = tl.program_id(0)
    row = tl.program_id(1) // QUERIES
    query = tl.program_id(1) % QUERIES
    first_query = row
    if TILED:
        first_query = tl.load(first_queries_ptr + row)
        if query >= tl.load(num_queries_ptr + row):
            return
    ends, total = line_of_tiles(lengths_ptr, num_rows, ROWS, BLOCK_N, 0)
    programs = tl.minimum(max_programs, total)
    rows = tl.arange(0, ROWS)
    begin = tl.max(tl.where(rows < row, ends, 0), 0)
    end = tl.min(tl.where(rows >= row, ends, total), 0)

    dims = tl.arange(0, RANK_PAD)
    out_place = out_ptr + (first_query + query).to(tl.int64) * stride_out_token + head * stride_out_head + dims
    if end == begin:  # no context
        tl.store(out_place, tl.zeros([RANK_PAD], out_ptr.dtype.element_ty), mask=dims < RANK)
        return
    # Program p starts at total * p // programs, so the last one that starts at or before tile t is:
    first = (((begin + 1).to(tl.int64) * programs - 1) // total).to(tl.int32)
    last = ((end.to(tl.int64) * programs - 1) // total).to(tl.int32)
    if first == last:
        return
    # The row is the first one of each share but that in which it begins, unless the two begin together.
    first_side = (begin > (total.to(tl.int64) * first // programs).to(tl.int32)).to(tl.int32)
    best = float("-inf")
    weight = 0.0
    acc = tl.zeros([RANK_PAD], tl.float32)
    for start in range(first, last + 1, BLOCK_P):
        parts = start + tl.arange(0, BLOCK_P)
        valid = parts <= last
        sides = 2 * parts + tl.where(parts == first, first_side, 0)
        place = (sides * QUERIES + query).to(tl.int64) * NUM_HEADS + head
        lse = tl.load(partial_lse_ptr + place, mask=valid, other=float("-inf"))
        part = tl.load(
            partial_ptr + place[:, None] * RANK + dims[None, :], mask=valid[:, None] & (dims[None, :] < RANK), other=0.0
        )
        # Every query sees the first tile of its row, so `best` is finite from the first part on.
        new_best = tl.maximum(best, tl.max(lse, 0))
        fade = tl.exp2(best - new_best)
        shares = tl.exp2(lse - new_best)
        weight = weight * fade + tl.sum(shares, 0)
        acc = acc * fade + tl.sum(part * shares[:, None], 0)
        best = new_best
    tl.store(out_place, (acc / weight).to(out_ptr.dtype.element_ty), mask=dims < RANK)
