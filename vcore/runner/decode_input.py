"""`DecodeInput`: the input of steps in which every row computes one token, at addresses that stay.

A CUDA graph reads it where it was when it was captured. The host fills one buffer, and a single copy takes over as
much of it as a step needs:

    int64   tokens | positions | rows | keys | slots, group by group      each [max_size]
    int32   seq_lens | unknown | temperature (float32)                    each [max_size]
    int32   width | count | num_shared                                    each [max_size], of which the first counts
    int32   block tables, [num_groups, count, width]

    tokens       7  9  4  0  0 .        a step of 3 rows in the graph of 5; rows 3 and 4 are padding, which computes
    positions    5 31  2  0  0 .        token 0 at position 0 of the null block, with a context of that token alone
    seq_lens     6 32  3  1  1 .
    rows         8  0  3 -1 -1 .        where the batch state has them
    unknown      0  1  1  0  0 .        the token has not reached the host: it is the last that the row sampled

`prepare`, the first kernel of a graph, puts in tokens that only the device knows, and spreads the block tables to
the width that attention was captured with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vcore.interfaces.attention import AttentionMetadata
from vcore.ops.dispatch import op
from vcore.runner.batch_state import BatchState

__all__ = ["DecodeInput", "prepare"]

_TOKENS, _POSITIONS, _ROWS, _KEYS, _SLOTS = range(5)
_SEQ_LENS, _UNKNOWN, _TEMPERATURE, _WIDTH, _COUNT, _NUM_SHARED = range(6)
_NUM_INTS = 6
_ALIGNMENT = 4
"""There is room for a multiple of so many rows, so that all that is drawn above begins at a multiple of 16 bytes:
Triton would compile kernels anew for what does not."""
_DEPTH = 3
"""Host buffers: one more than the steps that may be in flight."""


@op(cuda="vcore.ops.triton.decode_input:prepare")
def prepare(
    input_ids: torch.Tensor,
    block_tables: torch.Tensor,
    longs: torch.Tensor,
    ints: torch.Tensor,
    tables: torch.Tensor,
    last_token_ids: torch.Tensor,
    size: int,
) -> None:
    """Fill the first `size` rows of `input_ids` and `block_tables`, which are changed.

    Args:
        input_ids: int64 [max_size].
        block_tables: int32 [num_groups, max_size, max_blocks].
        longs: int64 [4 + num_groups, max_size], as drawn above.
        ints: int32 [6, max_size], likewise.
        tables: int32, the step's block tables one after another.
        last_token_ids: int64 [max_num_seqs], what each row sampled last.
        size: rows of the graph.
    """
    width, count = int(ints[_WIDTH, 0]), int(ints[_COUNT, 0])
    known = longs[_TOKENS, :size]
    input_ids[:size] = torch.where(ints[_UNKNOWN, :size] > 0, last_token_ids[longs[_ROWS, :size].clamp(min=0)], known)
    groups = block_tables.shape[0]
    block_tables[:, :count, :width] = tables[: groups * count * width].view(groups, count, width)
    block_tables[:, count:size, :width] = 0


class _HostBuffer:
    """One host buffer and what it is seen as."""

    def __init__(self, num_bytes: int, num_longs: int, max_size: int, pinned: bool) -> None:
        self.tensor = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=pinned)
        raw = self.tensor.numpy()
        ints_at = num_longs * max_size * 8
        self.tables_at = ints_at + _NUM_INTS * max_size * 4
        self.longs: NDArray[np.int64] = raw[:ints_at].view(np.int64).reshape(num_longs, max_size)
        self.ints: NDArray[np.int32] = raw[ints_at : self.tables_at].view(np.int32).reshape(_NUM_INTS, max_size)
        self.temperature: NDArray[np.float32] = self.ints[_TEMPERATURE].view(np.float32)
        self.tables: NDArray[np.int32] = raw[self.tables_at :].view(np.int32)
        self.copied: torch.cuda.Event | None = None


class DecodeInput:
    """Reads a `BatchState`; holds up to `max_size` rows."""

    def __init__(
        self, state: BatchState, *, max_size: int, windows: Sequence[int | None], device: torch.device
    ) -> None:
        """Allocate the buffers.

        Args:
            state: the batch's tokens and blocks, read by `fill`.
            max_size: the most rows of a step.
            windows: of each group of layers, its sliding window.
            device: where the input is to be.
        """
        self._state = state
        self._windows = tuple(windows)
        self._cuda = device.type == "cuda"
        max_size = -(-max_size // _ALIGNMENT) * _ALIGNMENT
        num_groups, num_longs = len(self._windows), _SLOTS + len(self._windows)
        num_tables = num_groups * max_size * state.max_blocks
        num_bytes = num_longs * max_size * 8 + (_NUM_INTS * max_size + num_tables) * 4
        self._host = [_HostBuffer(num_bytes, num_longs, max_size, self._cuda) for _ in range(_DEPTH)]
        self._turn = 0
        self._buffer = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
        ints_at, tables_at = num_longs * max_size * 8, self._host[0].tables_at
        self._longs = self._buffer[:ints_at].view(torch.int64).view(num_longs, max_size)
        self._ints = self._buffer[ints_at:tables_at].view(torch.int32).view(_NUM_INTS, max_size)
        self._tables = self._buffer[tables_at:].view(torch.int32)
        self._query_start_loc = torch.arange(max_size + 1, dtype=torch.int32, device=device)
        self._block_tables = torch.zeros((num_groups, max_size, state.max_blocks), dtype=torch.int32, device=device)
        self._input_ids = torch.zeros(max_size, dtype=torch.int64, device=device)

    def fill(
        self,
        rows: NDArray[np.int64],
        size: int,
        temperature: NDArray[np.float32] | None = None,
        keys: NDArray[np.int64] | None = None,
        num_shared_blocks: int = 0,
    ) -> None:
        """Start the copy of a step of these (distinct) `rows`, padded up to `size`. The host does not wait for it.

        Args:
            rows: int64 [count]; may be empty.
            size: rows of the graph.
            temperature: float32 [count], 0 for a greedy row; None if all are.
            keys: int64 [count], of `gumbel.position_keys`, with `temperature`.
            num_shared_blocks: leading blocks that the rows have in common.
        """
        self._turn = (self._turn + 1) % _DEPTH
        host, state, count = self._host[self._turn], self._state, rows.size
        if host.copied is not None:
            host.copied.synchronize()
        longs, ints = host.longs, host.ints
        starts = state.num_computed[rows]
        longs[_TOKENS, :count] = state.flat_token_ids[rows * state.max_model_len + starts]
        longs[_POSITIONS, :count] = starts
        longs[_ROWS, :count] = rows
        ints[_SEQ_LENS, :count] = starts + 1
        ints[_UNKNOWN, :count] = (state.num_unknown[rows] > 0) & (starts + 1 == state.num_tokens[rows])
        if temperature is None or keys is None:
            host.temperature[:count] = 0.0
        else:
            host.temperature[:count] = temperature
            longs[_KEYS, :count] = keys
        ints[_NUM_SHARED, 0] = num_shared_blocks
        if count < size:
            longs[:, count:size] = 0
            longs[_ROWS, count:size] = -1
            ints[:_WIDTH, count:size] = 0
            ints[_SEQ_LENS, count:size] = 1
        self._send(host, host.tables_at + 4 * self._fill_blocks(host, rows, starts))

    def _fill_blocks(self, host: _HostBuffer, rows: NDArray[np.int64], starts: NDArray[np.int64]) -> int:
        """Slots and block tables; returns how many entries the tables have."""
        state, count = self._state, rows.size
        blocks, offsets = np.divmod(starts, state.block_size)
        entries = rows * state.max_blocks + blocks
        num_groups = len(self._windows)
        # Only as many columns as the longest row fills.
        width = int(blocks.max(initial=0)) + 1 if num_groups else 0
        host.ints[_WIDTH, 0], host.ints[_COUNT, 0] = width, count
        tables = host.tables[: num_groups * count * width].reshape(num_groups, count, width)
        for group, table in enumerate(state.flat_block_tables):
            host.longs[_SLOTS + group, :count] = table[entries] * np.int64(state.block_size) + offsets
            tables[group] = state.block_tables[group, :, :width][rows]
        return tables.size

    def _send(self, host: _HostBuffer, num_bytes: int) -> None:
        self._buffer[:num_bytes].copy_(host.tensor[:num_bytes], non_blocking=self._cuda)
        if self._cuda:
            host.copied = host.copied or torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own
            host.copied.record()

    def prepare(self, last_token_ids: torch.Tensor, size: int) -> None:
        """What a graph of `size` rows begins with."""
        prepare(self._input_ids, self._block_tables, self._longs, self._ints, self._tables, last_token_ids, size)

    def tokens(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Input ids and positions, int64 [size]."""
        return self._input_ids[:size], self._longs[_POSITIONS, :size]

    def choice(self, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Temperature, keys and rows, [size]."""
        temperature = self._ints[_TEMPERATURE].view(torch.float32)
        return temperature[:size], self._longs[_KEYS, :size], self._longs[_ROWS, :size]

    def groups(self, size: int, *, shares: bool = False) -> list[AttentionMetadata]:
        """The first `size` rows as attention sees them: views. What the host knows of lengths are upper bounds.

        `shares` says whether the rows may begin with the same blocks.
        """
        longest = self._state.max_model_len
        return [
            AttentionMetadata(
                num_tokens=size,
                num_requests=size,
                num_decodes=size,
                query_start_loc=self._query_start_loc[: size + 1],
                query_start_loc_cpu=np.arange(size + 1, dtype=np.int32),
                seq_lens=self._ints[_SEQ_LENS, :size],
                seq_lens_cpu=np.full(size, longest, dtype=np.int32),
                max_query_len=1,
                max_seq_len=longest,
                block_table=self._block_tables[group, :size],
                slot_mapping=self._longs[_SLOTS + group, :size],
                sliding_window=window,
                num_shared_blocks=self._ints[_NUM_SHARED, :1] if shares and window is None else None,
            )
            for group, window in enumerate(self._windows)
        ]
