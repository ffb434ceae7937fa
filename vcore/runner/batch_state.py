"""`BatchState`: the tokens, lengths and blocks of every row, kept from step to step as numpy columns.

It applies the difference that a `SchedulerOutput` states, and takes in sampled tokens. It knows
nothing of sampling parameters, of tensors or of the model.

    row   token_ids                          num_prompt  num_tokens  num_computed   block_tables, one a group
    0     [p p p p p o o o . . . . . . .]    5           8           7              [4 9 . .]  [0 7 . .]
    1     [p p p p p p p p p . . . . . .]    9           9           4              [2 . . .]  [3 . . .]

A token that was sampled but has not reached the host counts in `num_tokens` and in `num_unknown`;
its place in `token_ids` means nothing until `fill_tokens`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from vcore.errors import CapacityError
from vcore.interfaces.step import NewRow, SchedulerOutput

__all__ = ["BatchState", "TokenView"]


class BatchState:
    """The persistent state of the batch on one rank. Row order is a pure function of the differences applied."""

    def __init__(self, *, max_num_seqs: int, max_model_len: int, block_size: int) -> None:
        """Allocate the tables, for one group of layers without a window.

        Raises:
            CapacityError: memory does not hold them.
        """
        with _telling_what_to_lower(max_num_seqs, max_model_len):
            self._allocate(max_num_seqs, max_model_len, block_size)

    def set_groups(self, windows: Sequence[int | None]) -> None:
        """Have a block table for each group of layers, once the model is known; no row may be in use.

        Args:
            windows: the sliding window of each group (`CacheLayout.windows`).

        Raises:
            CapacityError: memory does not hold them.
        """
        assert not self.active.any(), "rows are in use"
        with _telling_what_to_lower(self.num_tokens.size, self.max_model_len):
            self._allocate_tables(windows)

    def _allocate(self, max_num_seqs: int, max_model_len: int, block_size: int) -> None:
        self.block_size = block_size
        self.max_blocks = -(-max_model_len // block_size)
        # zeros, not empty: the system hands out its pages only when a row grows into them
        self.token_ids: NDArray[np.int32] = np.zeros((max_num_seqs, max_model_len), dtype=np.int32)
        """int32 [max_num_seqs, max_model_len]."""
        self.num_prompt = np.zeros(max_num_seqs, dtype=np.int64)
        self.num_tokens = np.zeros(max_num_seqs, dtype=np.int64)
        self.num_computed = np.zeros(max_num_seqs, dtype=np.int64)
        self.num_blocks = np.zeros(max_num_seqs, dtype=np.int64)
        """How many entries of each row's block tables mean anything; as many in every group."""
        self.num_unknown = np.zeros(max_num_seqs, dtype=np.int64)
        """How many of a row's last tokens have not reached the host."""
        self.epoch = np.zeros(max_num_seqs, dtype=np.int64)
        """Counts up when a row changes hands, so that a late token never lands in another request."""
        self.active = np.zeros(max_num_seqs, dtype=np.bool_)
        self.flat_token_ids: NDArray[np.int32] = self.token_ids.reshape(-1)
        """A view: the token at `position` of `row` is at ``row * max_model_len + position``."""
        self._allocate_tables((None,))

    def _allocate_tables(self, windows: Sequence[int | None]) -> None:
        self.windows = tuple(windows)
        """The sliding window of each group of layers."""
        shape = (len(windows), self.num_tokens.size, self.max_blocks)
        self.block_tables: NDArray[np.int32] = np.zeros(shape, dtype=np.int32)
        """int32 [num_groups, max_num_seqs, max_blocks]; 0 for what the group's window has left behind."""
        self.flat_block_tables: list[NDArray[np.int32]] = list(self.block_tables.reshape(len(windows), -1))
        """By group, a view: the entry at `column` of `row` is at ``row * max_blocks + column``."""

    @property
    def max_model_len(self) -> int:
        """The width of `token_ids`."""
        return int(self.token_ids.shape[1])

    def apply(self, output: SchedulerOutput) -> None:
        """Apply the difference: passed entries, then freed rows, then new ones, then blocks.

        Freeing a row that is not in use does nothing: a step may fail before its rows were taken.
        """
        if output.passed_entries.size:
            groups, rows, columns = output.passed_entries.T
            self.block_tables[groups, rows, columns] = 0
        for row in output.freed_rows:
            self._free(row)
        for new in output.new_rows:
            self._add(new)
        if output.grown_rows.size:
            self._grow(output.grown_rows.astype(np.int64), output.grown_block_ids)

    def advance(self, rows: NDArray[np.int64], num_tokens: NDArray[np.int32]) -> None:
        """Count `num_tokens` of each of the (distinct) `rows` as computed."""
        self.num_computed[rows] += num_tokens

    def append_tokens(self, rows: NDArray[np.int64], token_ids: NDArray[np.int64]) -> None:
        """Add one known token to each of the (distinct) `rows`."""
        num_tokens = self.num_tokens[rows]
        self.flat_token_ids[rows * self.max_model_len + num_tokens] = token_ids
        self.num_tokens[rows] = num_tokens + 1

    def append_unknown(self, rows: NDArray[np.int64]) -> None:
        """Add one token to each of the (distinct) `rows` that `fill_tokens` will name later."""
        self.num_tokens[rows] += 1
        self.num_unknown[rows] += 1

    def fill_tokens(
        self,
        rows: NDArray[np.int64],
        epochs: NDArray[np.int64],
        positions: NDArray[np.int64],
        token_ids: NDArray[np.int64],
    ) -> None:
        """Name tokens that `append_unknown` added, in the order in which they were added.

        Args:
            rows: int64 [n], distinct.
            epochs: int64 [n], `epoch` of each when its token was added; a row that has changed hands is left alone.
            positions: int64 [n], where each token stands.
            token_ids: int64 [n].
        """
        mine = np.flatnonzero((self.epoch[rows] == epochs) & (self.num_unknown[rows] > 0))
        rows = rows[mine]
        self.flat_token_ids[rows * self.max_model_len + positions[mine]] = token_ids[mine]
        self.num_unknown[rows] -= 1

    def num_known(self, row: int) -> int:
        """How many of the row's tokens are on the host."""
        return int(self.num_tokens[row] - self.num_unknown[row])

    def _free(self, row: int) -> None:
        self.active[row] = False
        self.epoch[row] += 1
        self.num_unknown[row] = 0

    def _add(self, new: NewRow) -> None:
        row, num_tokens, num_blocks = new.row, len(new.token_ids), len(new.block_ids[0])
        assert not self.active[row], f"row {row} is in use; it must be freed before {new.request_id} takes it"
        self.active[row] = True
        self.token_ids[row, :num_tokens] = new.token_ids
        self.block_tables[:, row, :num_blocks] = new.block_ids
        self.num_prompt[row] = new.num_prompt_tokens
        self.num_tokens[row] = num_tokens
        self.num_computed[row] = new.num_computed_tokens
        self.num_blocks[row] = num_blocks

    def _grow(self, rows: NDArray[np.int64], block_ids: NDArray[np.int32]) -> None:
        counts = np.bincount(rows)
        columns = self.num_blocks[rows]
        if counts.max() > 1:
            columns = columns + _occurrence(rows)
        entries = rows * self.max_blocks + columns
        for group, table in enumerate(self.flat_block_tables):
            table[entries] = block_ids[:, group]
        self.num_blocks[: counts.size] += counts


@contextmanager
def _telling_what_to_lower(max_num_seqs: int, max_model_len: int) -> Iterator[None]:
    try:
        yield
    except (MemoryError, ValueError):  # ValueError: more than an array may have on any machine
        raise CapacityError(
            f"the tables of {max_num_seqs:,} requests of up to {max_model_len:,} tokens do not fit into memory; "
            "lower scheduler.max_num_seqs or model.max_model_len"
        ) from None


def _occurrence(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each element, how many equal ones stand before it."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    indices = np.arange(values.size)
    starts = np.maximum.accumulate(np.where(np.diff(ordered, prepend=-1) != 0, indices, 0))
    result = np.empty_like(values)
    result[order] = indices - starts
    return result


class TokenView(Sequence[int]):
    """The tokens of one row from `start` on, live: it grows as the row does, by tokens that are on the host."""

    __slots__ = ("_row", "_start", "_state", "_stop")

    def __init__(self, state: BatchState, row: int, start: int, stop: int | None = None) -> None:
        self._state = state
        self._row = row
        self._start = start
        self._stop = stop

    def __len__(self) -> int:
        stop = self._state.num_known(self._row) if self._stop is None else self._stop
        return max(0, stop - self._start)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # an overload pair would say no more
        tokens = self._state.token_ids[self._row, self._start : self._start + len(self)]
        if isinstance(index, slice):
            return tokens[index].tolist()
        return int(tokens[index])
