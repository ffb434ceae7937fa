"""`InputBuilder`: from the scheduled rows to the tensors of one forward pass.

The one place where a step's input goes to the device. All index work is numpy over whole columns; a
step in which every row computes one token (the common case) takes a shorter path.

    rows [2 0 1], num_tokens [1 1 3]:

    token of the batch     0     1     2  3  4
    row                    2     0     1  1  1
    query_start_loc        0     1     2        5
    logits_indices         0     1           4          where a token is sampled
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vcore.interfaces.attention import AttentionMetadata
from vcore.interfaces.step import SchedulerOutput
from vcore.runner.batch_state import BatchState
from vcore.runner.staging import Staging

__all__ = ["ForwardBatch", "InputBuilder", "table_width"]

_TABLE_COLUMNS = 16
"""Block tables have a multiple of so many columns. Triton compiles a kernel anew for a stride of 1, and for one that is
no multiple of 16, which would then hold up a step in the middle of a load."""


def table_width(max_seq_len: int, block_size: int, max_blocks: int) -> int:
    """Columns of a step's block tables: those that the longest row fills, and a few."""
    return min(-(-max_seq_len // (_TABLE_COLUMNS * block_size)) * _TABLE_COLUMNS, max_blocks)


@dataclass(slots=True, kw_only=True)
class ForwardBatch:
    """One step's input, on the device, with what the host needs to make sense of the result."""

    input_ids: torch.Tensor
    """int64 [num_tokens]."""
    positions: torch.Tensor
    """int64 [num_tokens]."""
    groups: list[AttentionMetadata]
    """By group of layers; all but block table, slots and window is the same in each."""
    rows: NDArray[np.int64]
    """int64 [num_scheduled]: the rows in the order of the batch."""
    starts: NDArray[np.int64]
    """int64 [num_scheduled]: each row's computed tokens before this step."""
    sampled_rows: NDArray[np.int64]
    """int64 [num_sampled]: the rows that sample, in the order of the batch."""
    sampled_rows_on_device: torch.Tensor | None = None
    """The same on the device, if the builder was told to send them."""
    logits_indices: torch.Tensor | None
    """int64 [num_sampled]: which tokens' hidden states are sampled from; None: each token's, in order."""

    @property
    def metadata(self) -> AttentionMetadata:
        """The first group's, for what is the same in each."""
        return self.groups[0]


class InputBuilder:
    """Builds `ForwardBatch`es from a `BatchState`, which it does not change."""

    def __init__(
        self, state: BatchState, staging: Staging, max_num_batched_tokens: int, *, send_rows: bool = False
    ) -> None:
        """Read from `state` and send by `staging`; `send_rows` sends the sampled rows' numbers as well."""
        self._state = state
        self._staging = staging
        self._send_rows = send_rows
        self._query_start_loc = np.arange(state.num_tokens.size + 1, dtype=np.int32)
        # no step has more tokens than the rows hold, however generous the limit
        num_tokens = min(max_num_batched_tokens, state.token_ids.size)
        self._token_indices = np.arange(max(num_tokens, 1), dtype=np.int64)

    def build(
        self, output: SchedulerOutput, last_token_ids: torch.Tensor | None = None, num_shared_blocks: int = 0
    ) -> ForwardBatch:
        """The input of the step that `output` schedules; its difference has been applied to the state.

        Args:
            output: what to compute; at least one row.
            last_token_ids: int64 [max_num_seqs] on the device: each row's last sampled token, for rows whose
                last token has not reached the host. None if every token has.
            num_shared_blocks: what attention is told, no more than `SchedulerOutput.num_shared_blocks`.
        """
        rows = output.rows.astype(np.int64)
        starts = self._state.num_computed[rows]
        self._staging.begin()
        if output.num_decodes == rows.size:
            return self._build_decodes(output, rows, starts, last_token_ids, num_shared_blocks)
        return self._build_mixed(output, rows, starts, last_token_ids, num_shared_blocks)

    def _build_decodes(
        self,
        output: SchedulerOutput,
        rows: NDArray[np.int64],
        positions: NDArray[np.int64],
        last_token_ids: torch.Tensor | None,
        num_shared_blocks: int,
    ) -> ForwardBatch:
        """Every row has one token: token i of the batch is row i's, and indices need no expansion."""
        state, put = self._state, self._staging.put
        input_ids = state.flat_token_ids[rows * state.max_model_len + positions].astype(np.int64)
        seq_lens = (positions + 1).astype(np.int32)
        slots, query_start_loc = self._slots(rows, positions), self._query_start_loc[: rows.size + 1]
        groups = self._groups(output, rows, query_start_loc, seq_lens, slots, 1, num_shared_blocks)
        sampled_rows, logits_indices = rows, None
        if np.count_nonzero(output.samples) != rows.size:
            indices = np.flatnonzero(output.samples)
            sampled_rows, logits_indices = rows[indices], put(indices)
        batch = ForwardBatch(
            input_ids=put(input_ids),
            positions=put(positions),
            groups=groups,
            rows=rows,
            starts=positions,
            sampled_rows=sampled_rows,
            logits_indices=logits_indices,
        )
        self._finish(batch, self._token_indices[: rows.size], last_token_ids)
        return batch

    def _build_mixed(
        self,
        output: SchedulerOutput,
        rows: NDArray[np.int64],
        starts: NDArray[np.int64],
        last_token_ids: torch.Tensor | None,
        num_shared_blocks: int,
    ) -> ForwardBatch:
        state, put = self._state, self._staging.put
        num_tokens = output.num_tokens
        query_start_loc = np.zeros(rows.size + 1, dtype=np.int32)
        np.cumsum(num_tokens, out=query_start_loc[1:])
        total = int(query_start_loc[-1])
        if total > self._token_indices.size:
            self._token_indices = np.arange(2 * total, dtype=np.int64)
        # int64 [num_tokens]: a token's position is its index in the batch, shifted by a constant of its row
        positions = self._token_indices[:total] + np.repeat(starts - query_start_loc[:-1], num_tokens)
        row_of_token = np.repeat(rows, num_tokens)
        input_ids = state.flat_token_ids[row_of_token * state.max_model_len + positions].astype(np.int64)
        seq_lens = (starts + num_tokens).astype(np.int32)
        slots = self._slots(row_of_token, positions)
        last_of_row = query_start_loc[1:].astype(np.int64) - 1
        longest = int(num_tokens.max())
        batch = ForwardBatch(
            groups=self._groups(output, rows, query_start_loc, seq_lens, slots, longest, num_shared_blocks),
            input_ids=put(input_ids),
            positions=put(positions),
            rows=rows,
            starts=starts,
            sampled_rows=rows[output.samples],
            logits_indices=put(last_of_row[output.samples]),
        )
        self._finish(batch, last_of_row, last_token_ids)
        return batch

    def _slots(self, row_of_token: NDArray[np.int64], positions: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """By group, int64 [num_tokens]: where each token's K and V go."""
        state = self._state
        blocks, offsets = np.divmod(positions, state.block_size)
        entries = row_of_token * state.max_blocks + blocks
        return [table[entries] * np.int64(state.block_size) + offsets for table in state.flat_block_tables]

    def _groups(
        self,
        output: SchedulerOutput,
        rows: NDArray[np.int64],
        query_start_loc: NDArray[np.int32],
        seq_lens: NDArray[np.int32],
        slots: list[NDArray[np.int64]],
        max_query_len: int,
        num_shared_blocks: int,
    ) -> list[AttentionMetadata]:
        put, state = self._staging.put, self._state
        query_start_loc_sent, seq_lens_sent = put(query_start_loc), put(seq_lens)
        max_seq_len = int(seq_lens.max())
        shared = put(np.array([num_shared_blocks], dtype=np.int32)) if num_shared_blocks else None
        # A copy, so that later steps do not change it.
        width = table_width(max_seq_len, state.block_size, state.max_blocks)
        return [
            AttentionMetadata(
                num_tokens=slots[group].size,
                num_requests=rows.size,
                num_decodes=output.num_decodes,
                query_start_loc=query_start_loc_sent,
                query_start_loc_cpu=query_start_loc,
                seq_lens=seq_lens_sent,
                seq_lens_cpu=seq_lens,
                max_query_len=max_query_len,
                max_seq_len=max_seq_len,
                block_table=put(state.block_tables[group, :, :width][rows]),
                slot_mapping=put(slots[group]),
                sliding_window=window,
                num_shared_blocks=shared if window is None else None,
            )
            for group, window in enumerate(state.windows)
        ]

    def _finish(self, batch: ForwardBatch, last_of_row: NDArray[np.int64], last_token_ids: torch.Tensor | None) -> None:
        """Start the copy, and fill in on the device the tokens that the host does not know."""
        if self._send_rows:
            batch.sampled_rows_on_device = self._staging.put(batch.sampled_rows)
        if last_token_ids is None:
            self._staging.flush()
            return
        state, rows = self._state, batch.rows
        ends = batch.metadata.seq_lens_cpu
        unknown = np.flatnonzero((state.num_unknown[rows] > 0) & (ends == state.num_tokens[rows]))
        if not unknown.size:
            self._staging.flush()
            return
        at, of_row = self._staging.put(last_of_row[unknown]), self._staging.put(rows[unknown])
        self._staging.flush()
        batch.input_ids.index_copy_(0, at, last_token_ids.index_select(0, of_row))
