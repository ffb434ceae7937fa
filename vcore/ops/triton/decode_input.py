"""The first kernel of a decode step's CUDA graph: tokens that only the device knows, and block tables."""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["prepare"]

_BLOCK = 256


@triton.jit
def _prepare_kernel(
    input_ids_ptr,
    block_tables_ptr,
    tokens_ptr,
    rows_ptr,
    unknown_ptr,
    width_ptr,
    count_ptr,
    tables_ptr,
    last_token_ids_ptr,
    stride_group,
    stride_row,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1).to(tl.int64)
    width = tl.load(width_ptr)
    count = tl.load(count_ptr)
    if group == 0:
        unknown = tl.load(unknown_ptr + index) > 0
        row = tl.load(rows_ptr + index)
        last = tl.load(last_token_ids_ptr + row, mask=unknown, other=0)
        tl.store(input_ids_ptr + index, tl.where(unknown, last, tl.load(tokens_ptr + index)))
    source = tables_ptr + (group * count + index) * width
    target = block_tables_ptr + group * stride_group + index * stride_row
    for start in range(0, width, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < width
        tl.store(target + columns, tl.load(source + columns, mask=inside & (index < count), other=0), mask=inside)


def prepare(
    input_ids: torch.Tensor,
    block_tables: torch.Tensor,
    longs: torch.Tensor,
    ints: torch.Tensor,
    tables: torch.Tensor,
    last_token_ids: torch.Tensor,
    size: int,
) -> None:
    """As `vcore.runner.decode_input.prepare`; reads the step's shape on the device."""
    _prepare_kernel[(size, max(1, block_tables.shape[0]))](
        input_ids,
        block_tables,
        longs[0],
        longs[2],
        ints[1],
        ints[3],
        ints[4],
        tables,
        last_token_ids,
        block_tables.stride(0),
        block_tables.stride(1),
        BLOCK=_BLOCK,
        num_warps=1,
    )
