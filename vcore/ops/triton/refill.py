"""A decode step's input into the places that a CUDA graph reads: one kernel a group of layers."""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

__all__ = ["refill"]

_BLOCK = 1024


@triton.jit(do_not_specialize=["num_rows", "width"])
def _refill_kernel(
    input_ids_ptr,
    positions_ptr,
    seq_lens_ptr,
    slot_mapping_ptr,
    block_table_ptr,
    from_input_ids_ptr,
    from_positions_ptr,
    from_seq_lens_ptr,
    from_slot_mapping_ptr,
    from_block_table_ptr,
    num_rows,
    width,
    stride_table,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    known = row < num_rows
    if part == 0:
        tl.store(input_ids_ptr + row, tl.load(from_input_ids_ptr + row, mask=known, other=0))
        tl.store(positions_ptr + row, tl.load(from_positions_ptr + row, mask=known, other=0))
        tl.store(seq_lens_ptr + row, tl.load(from_seq_lens_ptr + row, mask=known, other=1))
        tl.store(slot_mapping_ptr + row, tl.load(from_slot_mapping_ptr + row, mask=known, other=0))
    columns = part * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    blocks = tl.load(from_block_table_ptr + row * width + columns, mask=inside & known, other=0)
    tl.store(block_table_ptr + row * stride_table + columns, blocks, mask=inside)


def refill(
    input_ids: torch.Tensor,
    positions: torch.Tensor,
    seq_lens: torch.Tensor,
    slot_mapping: torch.Tensor,
    block_table: torch.Tensor,
    sources: Sequence[torch.Tensor],
    size: int,
) -> None:
    """As `vcore.runner.decode_input.refill`; the source's table is contiguous."""
    num_rows, width = sources[4].shape
    _refill_kernel[(size, triton.cdiv(width, _BLOCK))](
        input_ids,
        positions,
        seq_lens,
        slot_mapping,
        block_table,
        *sources,
        num_rows,
        width,
        block_table.stride(0),
        BLOCK=_BLOCK,
    )
