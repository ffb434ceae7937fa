"""Rows by expert, on the device alone, in one kernel: what the grouped products read instead of a host's schedule.

A row is a token for one of its experts, numbered ``token * top_k + choice``.

    expert ids       2 0 2 1 | 0 2 ...
    sorted_rows      1 4 . | 3 . | 0 2 5 .      rows of expert 0, then 1, then 2, each in ascending order
    tiles            of BLOCK_M such rows each; an expert's last one may be shorter, and no tile has rows of two
"""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from vcore.ops.triton.early_start import begin_and_wait, starts_early

__all__ = ["SortedRows", "sort_rows"]

_MAX_CHUNK = 4096
"""Rows that a program looks at at a time."""


@dataclass(frozen=True, slots=True)
class SortedRows:
    """Rows by expert, all on the device."""

    rows: torch.Tensor
    """int32 [num_rows]: numbers of rows."""
    tiles: torch.Tensor
    """int32 [3, max_tiles]: of each tile, its expert, and where in `rows` it begins and ends."""
    num_tiles: torch.Tensor
    """int32 [1]: how many tiles there are."""

    @property
    def max_tiles(self) -> int:
        """The most that there can be."""
        return self.tiles.shape[1]


@triton.jit(do_not_specialize=["num_rows", "max_tiles"])
def _sort_kernel(
    sorted_rows_ptr,
    tiles_ptr,
    num_tiles_ptr,
    expert_ids_ptr,
    num_rows,
    max_tiles,
    EXPERTS_PAD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    CHUNK: tl.constexpr,
    EARLY: tl.constexpr,
):
    """One program an expert: it counts everybody's rows, and places its own."""
    begin_and_wait(EARLY)
    expert = tl.program_id(0)
    offsets = tl.arange(0, CHUNK)
    experts = tl.arange(0, EXPERTS_PAD)
    counts = tl.zeros([EXPERTS_PAD], tl.int32)
    for start in range(0, num_rows, CHUNK):
        inside = start + offsets < num_rows
        expert_ids = tl.load(expert_ids_ptr + start + offsets, mask=inside, other=0).to(tl.int32)
        counts += tl.histogram(expert_ids, EXPERTS_PAD, mask=inside)
    count = tl.sum(tl.where(experts == expert, counts, 0), 0)
    begin = tl.sum(tl.where(experts < expert, counts, 0), 0)
    first_tile = tl.sum(tl.where(experts < expert, tl.cdiv(counts, BLOCK_M), 0), 0)
    if expert == 0:
        tl.store(num_tiles_ptr, tl.sum(tl.cdiv(counts, BLOCK_M), 0))
    for tile in range(0, tl.cdiv(count, BLOCK_M), 16):
        places = tile + tl.arange(0, 16)
        own = places < tl.cdiv(count, BLOCK_M)
        tile_ptrs = tiles_ptr + first_tile + places
        tl.store(tile_ptrs, tl.zeros([16], tl.int32) + expert, mask=own)
        tl.store(tile_ptrs + max_tiles, begin + places * BLOCK_M, mask=own)
        tl.store(tile_ptrs + 2 * max_tiles, begin + tl.minimum((places + 1) * BLOCK_M, count), mask=own)
    if count > 0:
        taken = begin
        for start in range(0, num_rows, CHUNK):
            inside = start + offsets < num_rows
            own = tl.load(expert_ids_ptr + start + offsets, mask=inside, other=-1).to(tl.int32) == expert
            before = tl.cumsum(own.to(tl.int32), 0) - 1
            tl.store(sorted_rows_ptr + taken + before, start + offsets, mask=own)
            taken += tl.sum(own.to(tl.int32), 0)


def sort_rows(expert_ids: torch.Tensor, num_experts: int, block_m: int) -> SortedRows:
    """Sort rows by expert.

    Args:
        expert_ids: int64 [num_tokens, top_k], contiguous.
        num_experts: all that there are.
        block_m: rows a tile.
    """
    num_rows, device = expert_ids.numel(), expert_ids.device
    max_tiles = num_rows // block_m + min(num_experts, num_rows)
    sorted_rows = SortedRows(
        rows=torch.empty(num_rows, dtype=torch.int32, device=device),
        tiles=torch.empty((3, max_tiles), dtype=torch.int32, device=device),
        num_tiles=torch.empty(1, dtype=torch.int32, device=device),
    )
    chunk = min(_MAX_CHUNK, max(128, triton.next_power_of_2(num_rows)))
    early = starts_early(device, expert_ids.shape[0])
    _sort_kernel[(num_experts,)](
        sorted_rows.rows,
        sorted_rows.tiles,
        sorted_rows.num_tiles,
        expert_ids,
        num_rows,
        max_tiles,
        EXPERTS_PAD=triton.next_power_of_2(num_experts),
        BLOCK_M=block_m,
        CHUNK=chunk,
        EARLY=early,
        num_warps=min(8, max(1, chunk // 256)),
        **({"launch_pdl": True} if early else {}),
    )
    return sorted_rows
