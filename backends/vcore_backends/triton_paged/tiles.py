"""What the kernels share: how they find a tile of keys, and what they do to its scores."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["LOG2_E", "block_ids", "chunk_class", "line_of_tiles", "row_class", "shared_length", "soft_capped"]

LOG2_E = 1.4426950408889634
"""The kernels' exponentials are in base 2, which the hardware computes."""


@triton.jit
def block_ids(table_ptr, tile, seq_len, BLOCK_SIZE: tl.constexpr, BLOCK_N: tl.constexpr):
    """The cache block of each token of a tile, or the one block that holds them all; 0 past the context."""
    if BLOCK_SIZE % BLOCK_N == 0:
        start = tile * BLOCK_N
        return tl.load(table_ptr + start // BLOCK_SIZE, mask=start < seq_len, other=0)
    else:
        offsets = tl.arange(0, BLOCK_N)
        if BLOCK_N % BLOCK_SIZE == 0:  # the division leaves the loop
            columns = tile * (BLOCK_N // BLOCK_SIZE) + offsets // BLOCK_SIZE
        else:
            columns = (tile * BLOCK_N + offsets) // BLOCK_SIZE
        return tl.load(table_ptr + columns, mask=offsets < seq_len - tile * BLOCK_N, other=0)


@triton.jit
def line_of_tiles(
    seq_lens_ptr,
    num_requests,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    WINDOW: tl.constexpr,
    shared_len=0,
    SHARED: tl.constexpr = False,
):
    """Where each request's tiles end on the line, int32 [ROWS], and the line's length.

    With SHARED, a request that is longer than `shared_len`, a multiple of BLOCK_N, begins behind it.
    """
    rows = tl.arange(0, ROWS)
    seq_lens = tl.load(seq_lens_ptr + rows, mask=rows < num_requests, other=0)
    num_tiles = tl.cdiv(seq_lens, BLOCK_N)
    if WINDOW > 0:
        num_tiles -= tl.maximum(seq_lens - WINDOW, 0) // BLOCK_N
    if SHARED:
        num_tiles -= tl.where(seq_lens > shared_len, shared_len // BLOCK_N, 0)
    return tl.cumsum(num_tiles, 0), tl.sum(num_tiles, 0)


@triton.jit
def shared_length(num_shared_blocks_ptr, BLOCK_SIZE: tl.constexpr, ALIGN: tl.constexpr):
    """Tokens that are attended once for all requests which are longer: whole tiles of every kernel involved."""
    return tl.load(num_shared_blocks_ptr) * BLOCK_SIZE // ALIGN * ALIGN


@triton.jit
def soft_capped(scores, scale_log2, SOFT_CAP: tl.constexpr):
    """``SOFT_CAP * tanh(scores * scale / SOFT_CAP)`` in units of log2; `scale_log2` is scale * log2(e)."""
    grown = tl.exp2(scores * (2.0 * scale_log2 / SOFT_CAP))
    return (SOFT_CAP * 1.4426950408889634) * (1.0 - 2.0 / (grown + 1.0))


def row_class(num_requests: int) -> int:
    """How many requests a kernel is compiled for: few classes, so that few variants are compiled."""
    return _class(num_requests, 4)


def chunk_class(num_requests: int) -> int:
    """The same for kernels of chunks, whose programs compute for longer: fewer classes."""
    return _class(num_requests, 16)


def _class(num_requests: int, factor: int) -> int:
    rows = 16
    while rows < num_requests:
        rows *= factor
    return rows
