"""The kernel that merges the partial results which the decode kernel leaves of a split context.

It finds them as the decode kernel placed them: see the drawing in `decode`. Where a prefix is shared, those of
`shared_prefix` join them.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from vcore.ops.triton.quick_jit import quick_jit
from vcore_backends.triton_paged.tiles import line_of_tiles, shared_length

__all__ = ["merge_kernel"]


@triton.jit
def _fold(
    acc,
    best,
    weight,
    partial_ptr,
    partial_lse_ptr,
    place,
    valid,
    HEAD_DIM: tl.constexpr,
    HEAD_DIM_PAD: tl.constexpr,
):
    """Take the partial results at `place`, as far as they are `valid`, into the running softmax."""
    dims = tl.arange(0, HEAD_DIM_PAD)
    lse = tl.load(partial_lse_ptr + place, mask=valid, other=float("-inf"))
    part = tl.load(
        partial_ptr + place[:, None] * HEAD_DIM + dims[None, :],
        mask=valid[:, None] & (dims[None, :] < HEAD_DIM),
        other=0.0,
    )
    new_best = tl.maximum(best, tl.max(lse, 0))
    fade = tl.exp2(best - new_best)
    shares = tl.exp2(lse - new_best)
    weight = weight * fade + tl.sum(shares, 0)
    acc = acc * fade + tl.sum(part * shares[:, None], 0)
    return acc, new_best, weight


@quick_jit(do_not_specialize=["num_requests", "num_splits"], do_not_specialize_on_alignment=["num_shared_blocks_ptr"])
def merge_kernel(
    out_ptr,
    partial_ptr,
    partial_lse_ptr,
    shared_ptr,
    shared_lse_ptr,
    seq_lens_ptr,
    num_shared_blocks_ptr,
    num_requests,
    max_programs,
    num_splits,
    stride_out_token,
    stride_out_head,
    NUM_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_DIM_PAD: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ROWS: tl.constexpr,
    WINDOW: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    SHARED_ALIGN: tl.constexpr,
    SHARED_BLOCK_N: tl.constexpr,
    EARLY: tl.constexpr,
):
    if EARLY:
        # All programs wait, those without partials too: what is launched next waits for this kernel alone, and
        # must not start before the decode kernel has written its rows.
        gdc_launch_dependents()
        gdc_wait()
    head = tl.program_id(0)
    row = tl.program_id(1)
    shared_len = 0
    if SHARED_ALIGN > 0:
        shared_len = shared_length(num_shared_blocks_ptr, BLOCK_SIZE, SHARED_ALIGN)
    ends, total = line_of_tiles(seq_lens_ptr, num_requests, ROWS, BLOCK_N, WINDOW, shared_len, SHARED_ALIGN > 0)
    programs = tl.minimum(max_programs, total)
    rows = tl.arange(0, ROWS)
    begin = tl.max(tl.where(rows < row, ends, 0), 0)
    end = tl.min(tl.where(rows >= row, ends, total), 0)

    dims = tl.arange(0, HEAD_DIM_PAD)
    out_place = out_ptr + row * stride_out_token + head * stride_out_head + dims
    if end == begin:  # a padding row without context
        tl.store(out_place, tl.zeros([HEAD_DIM_PAD], out_ptr.dtype.element_ty), mask=dims < HEAD_DIM)
        return
    # Program p starts at total * p // programs, so the last one that starts at or before tile t is:
    first = (((begin + 1).to(tl.int64) * programs - 1) // total).to(tl.int32)
    last = ((end.to(tl.int64) * programs - 1) // total).to(tl.int32)
    is_written = first == last
    if SHARED_ALIGN > 0:
        takes_part = tl.load(seq_lens_ptr + row) > shared_len
        num_shared = tl.where(takes_part, tl.minimum(num_splits, shared_len // SHARED_BLOCK_N), 0)
        is_written = is_written & (num_shared == 0)
    if is_written:
        return
    best = float("-inf")
    weight = 0.0
    acc = tl.zeros([HEAD_DIM_PAD], tl.float32)
    for start in range(first, last + 1, BLOCK_P):
        parts = start + tl.arange(0, BLOCK_P)
        place = (parts + row).to(tl.int64) * NUM_HEADS + head
        acc, best, weight = _fold(
            acc, best, weight, partial_ptr, partial_lse_ptr, place, parts <= last, HEAD_DIM, HEAD_DIM_PAD
        )
    if SHARED_ALIGN > 0:
        for start in range(0, num_shared, BLOCK_P):
            parts = start + tl.arange(0, BLOCK_P)
            place = (parts * num_requests + row).to(tl.int64) * NUM_HEADS + head
            acc, best, weight = _fold(
                acc, best, weight, shared_ptr, shared_lse_ptr, place, parts < num_shared, HEAD_DIM, HEAD_DIM_PAD
            )
    tl.store(out_place, (acc / weight).to(out_ptr.dtype.element_ty), mask=dims < HEAD_DIM)
