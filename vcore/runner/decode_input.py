"""`DecodeInput`: the input of a decode step at addresses that stay, filled anew before each replay of a CUDA graph.

input_ids    7  9  4  0  0 .        a step of 3 rows in the graph of 5; rows 3 and 4 are padding, which computes
positions    5 31  2  0  0 .        token 0 at position 0 of the null block, with a context of that token alone
seq_lens     6 32  3  1  1 .
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vcore.interfaces.attention import AttentionMetadata
from vcore.ops.dispatch import op
from vcore.runner.input_builder import ForwardBatch

__all__ = ["DecodeInput", "refill"]


@op(cuda="vcore.ops.triton.refill:refill")
def refill(
    input_ids: torch.Tensor,
    positions: torch.Tensor,
    seq_lens: torch.Tensor,
    slot_mapping: torch.Tensor,
    block_table: torch.Tensor,
    sources: Sequence[torch.Tensor],
    size: int,
) -> None:
    """Fill the first rows of the first five, which are changed, from `sources`, and pad them up to `size` rows.

    Args:
        input_ids: int64 [max_size].
        positions: int64 [max_size].
        seq_lens: int32 [max_size].
        slot_mapping: int64 [max_size].
        block_table: int32 [max_size, max_blocks].
        sources: the same five of the step, of ``num_rows <= size`` rows, the table of ``width <= max_blocks`` columns.
        size: rows that mean something afterwards.
    """
    num_rows, width = sources[4].shape
    targets = ((input_ids, 0), (positions, 0), (seq_lens, 1), (slot_mapping, 0))
    for (target, padding), source in zip(targets, sources[:4], strict=True):
        target[:num_rows] = source
        target[num_rows:size] = padding
    block_table[:num_rows, :width] = sources[4]
    block_table[num_rows:size, 0] = 0


class DecodeInput:
    """Tensors for up to `max_size` rows of one token each."""

    def __init__(
        self,
        *,
        max_size: int,
        windows: Sequence[int | None],
        max_model_len: int,
        max_blocks: int,
        device: torch.device,
    ) -> None:
        """Allocate them.

        Args:
            max_size: the most rows.
            windows: of each group of layers, its sliding window.
            max_model_len: the most tokens of a request.
            max_blocks: the width of a block table.
            device: where they are.
        """
        self._windows = tuple(windows)
        self._max_model_len = max_model_len
        # Zeros: a row that is first used as padding has the null block in its table.
        self.input_ids = torch.zeros(max_size, dtype=torch.int64, device=device)
        self.positions = torch.zeros(max_size, dtype=torch.int64, device=device)
        self._seq_lens = torch.ones(max_size, dtype=torch.int32, device=device)
        self._query_start_loc = torch.arange(max_size + 1, dtype=torch.int32, device=device)
        self._slots = [torch.zeros(max_size, dtype=torch.int64, device=device) for _ in self._windows]
        self._tables = [torch.zeros((max_size, max_blocks), dtype=torch.int32, device=device) for _ in self._windows]

    def groups(self, size: int) -> list[AttentionMetadata]:
        """The first `size` rows as attention sees them: views. What the host knows of lengths are upper bounds."""
        return [
            AttentionMetadata(
                num_tokens=size,
                num_requests=size,
                num_decodes=size,
                query_start_loc=self._query_start_loc[: size + 1],
                query_start_loc_cpu=np.arange(size + 1, dtype=np.int32),
                seq_lens=self._seq_lens[:size],
                seq_lens_cpu=np.full(size, self._max_model_len, dtype=np.int32),
                max_query_len=1,
                max_seq_len=self._max_model_len,
                block_table=table[:size],
                slot_mapping=slots[:size],
                sliding_window=window,
            )
            for table, slots, window in zip(self._tables, self._slots, self._windows, strict=True)
        ]

    def fill(self, batch: ForwardBatch, size: int) -> None:
        """Take over the rows of `batch`, each of one token, and pad them up to `size`."""
        for group, slots, table in zip(batch.groups, self._slots, self._tables, strict=True):
            sources = (batch.input_ids, batch.positions, group.seq_lens, group.slot_mapping, group.block_table)
            refill(self.input_ids, self.positions, self._seq_lens, slots, table, sources, size)

    def clear(self, size: int) -> None:
        """Make the first `size` rows padding."""
        for tensor in (self.input_ids, self.positions, *self._slots, *self._tables):
            tensor[:size].zero_()
        self._seq_lens[:size].fill_(1)
