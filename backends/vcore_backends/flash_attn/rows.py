"""`StepRows`: a step as two calls of the library, one for its decode rows and one for the others.

All lengths are read on the device. Where the library wants them summed up, they are summed there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vcore.interfaces.attention import AttentionMetadata

__all__ = ["PrefillRows", "StepRows", "plan_rows"]


@dataclass(frozen=True, slots=True)
class PrefillRows:
    """The rows behind the decode rows, whose queries stand one row after another."""

    query_start_loc: torch.Tensor
    """int32 [num_rows + 1]: the first is 0, the first query behind the decode rows."""
    kv_start_loc: torch.Tensor | None
    """int32 [num_rows + 1]: the lengths of contexts, summed up; None where the library takes the lengths alone."""
    seq_lens: torch.Tensor
    """int32 [num_rows]."""
    block_table: torch.Tensor
    """int32 [num_rows, max_blocks]."""
    max_query_len: int
    max_seq_len: int
    """No context is longer; it may be an upper bound."""


@dataclass(frozen=True, slots=True)
class StepRows:
    """One step of one group of layers."""

    num_decodes: int
    """As many leading queries as decode rows."""
    decode_seq_lens: torch.Tensor
    """int32 [num_decodes]."""
    decode_block_table: torch.Tensor
    """int32 [num_decodes, max_blocks]."""
    prefill: PrefillRows | None
    """None if all rows are decode rows."""


def plan_rows(metadata: AttentionMetadata, *, sums_lengths: bool) -> StepRows:
    """Views of `metadata`, except for what is summed up; a plan of decode rows is nothing but views, so that what was
    captured from it stays right as its tensors are refilled.

    Args:
        metadata: the step. Not changed.
        sums_lengths: whether `PrefillRows.kv_start_loc` is wanted.
    """
    num_decodes = metadata.num_decodes
    prefill = None
    if metadata.num_requests > num_decodes:
        seq_lens = metadata.seq_lens[num_decodes:]
        prefill = PrefillRows(
            # A decode row has one query, so the first of these queries has the number `num_decodes`.
            query_start_loc=metadata.query_start_loc[num_decodes:] - num_decodes,
            kv_start_loc=_summed(seq_lens) if sums_lengths else None,
            seq_lens=seq_lens,
            block_table=metadata.block_table[num_decodes:],
            max_query_len=metadata.max_query_len,
            max_seq_len=metadata.max_seq_len,
        )
    return StepRows(
        num_decodes=num_decodes,
        decode_seq_lens=metadata.seq_lens[:num_decodes],
        decode_block_table=metadata.block_table[:num_decodes],
        prefill=prefill,
    )


def _summed(lengths: torch.Tensor) -> torch.Tensor:
    """int32 [num_rows + 1] of int32 [num_rows]: 0, the first, the first two together, and so on."""
    sums = lengths.new_zeros(lengths.shape[0] + 1)
    torch.cumsum(lengths, 0, dtype=torch.int32, out=sums[1:])
    return sums
