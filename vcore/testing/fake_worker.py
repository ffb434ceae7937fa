"""`FakeWorker`: a worker without a model, which finds out whether the scheduler ever mixes anything up.

It keeps rows as a real one does, from `SchedulerOutput` alone. Its KV store holds, for each slot, a digest of all
tokens up to that position (and of the cache salt), and the group of layers that it was written for; in each step it
checks that every position that a row reads, in each group within its window, holds the digest of that row's own
tokens. The next token is a pure function of that digest, so what a request generates must not depend on scheduling:
`generate` computes it alone. So it is with the vector of a request that pools: `pool`.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vcore.engine.request import EngineRequest, FinishReason
from vcore.interfaces.step import SampledTokens, SchedulerOutput
from vcore.pooling_params import PoolingMode

__all__ = [
    "VOCAB",
    "FakeWorker",
    "WorkerRow",
    "digest",
    "generate",
    "next_token",
    "pool",
    "pooled_vector",
    "root_digest",
]

VOCAB = 50
"""How many tokens there are."""


def digest(previous: int, token_id: int) -> int:
    """What stands for all tokens up to one."""
    return zlib.crc32(token_id.to_bytes(4, "little"), previous)


def root_digest(extra_keys: Sequence[str]) -> int:
    """What stands for no tokens yet."""
    return zlib.crc32("/".join(extra_keys).encode())


def next_token(value: int, vocab: int = VOCAB) -> int:
    """The token that follows what a digest stands for."""
    return (value >> 3) % vocab


def generate(request: EngineRequest, vocab: int = VOCAB) -> tuple[list[int], FinishReason, int | None]:
    """What a request gives when it is computed alone."""
    value = root_digest(request.extra_keys)
    for token_id in request.prompt_token_ids:
        value = digest(value, token_id)
    tokens: list[int] = []
    while True:
        token_id = next_token(value, vocab)
        tokens.append(token_id)
        value = digest(value, token_id)
        if len(tokens) >= request.params.min_tokens:
            if token_id in request.eos_token_ids:
                return tokens, FinishReason.STOP, None
            if token_id in request.params.stop_token_ids:
                return tokens, FinishReason.STOP, token_id
        if len(tokens) == request.max_tokens:
            return tokens, FinishReason.LENGTH, None


def pooled_vector(values: Sequence[int], mode: PoolingMode) -> NDArray[np.float32]:
    """The vector of a prompt: float32 [2], of the last of its digests or, for ``mean``, of all of them."""
    value = values[-1] if mode == "last" else sum(values)
    return np.array([value >> 16 & 0xFFFF, value & 0xFFFF], dtype=np.float32)


def pool(request: EngineRequest) -> bytes:
    """What a request that pools gives when it is computed alone."""
    assert request.pooling is not None
    values = [root_digest(request.extra_keys)]
    for token_id in request.prompt_token_ids:
        values.append(digest(values[-1], token_id))
    return pooled_vector(values[1:], request.pooling).tobytes()


@dataclass
class WorkerRow:
    """A request as the worker knows it."""

    request_id: str
    tokens: list[int]
    num_computed: int
    block_ids: list[list[int]]
    """By group."""
    root: int
    pooling: PoolingMode | None = None
    pooled: list[int] = field(default_factory=list)
    """The digests of what was computed since it took the row."""


@dataclass
class FakeWorker:
    """Rows and a KV store."""

    block_size: int
    num_blocks: int
    root_of: Callable[[str], int]
    vocab: int = VOCAB
    windows: tuple[int | None, ...] = (None,)
    prefix_caching: bool = True
    rows: dict[int, WorkerRow] = field(default_factory=dict)
    kv: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    """By block and offset, the group and the digest."""

    def apply(self, output: SchedulerOutput) -> None:
        """Change the rows as a step says."""
        for group, row, column in output.passed_entries.tolist():
            # A row that a failed step should have taken may be unknown, one that is freed below is the old request's.
            if row in self.rows:
                assert self.rows[row].block_ids[group][column], "an entry passes once"
                self.rows[row].block_ids[group][column] = 0
        for row in output.freed_rows:
            self.rows.pop(row, None)
        for new in output.new_rows:
            assert new.row not in self.rows, f"row {new.row} is taken"
            self.rows[new.row] = WorkerRow(
                new.request_id,
                list(new.token_ids),
                new.num_computed_tokens,
                [list(ids) for ids in new.block_ids],
                self.root_of(new.request_id),
                new.pooling,
            )
        assert output.grown_block_ids.shape == (output.grown_rows.size, len(self.windows)) or not output.grown_rows.size
        for row, column in zip(output.grown_rows.tolist(), output.grown_block_ids.tolist(), strict=True):
            for block_ids, block_id in zip(self.rows[row].block_ids, column, strict=True):
                block_ids.append(block_id)

    def compute(self, output: SchedulerOutput, *, poison: bool = False) -> SampledTokens:
        """Apply a step and compute it; `poison` writes garbage, as a step that fails half-way might."""
        self.apply(output)
        written: set[tuple[int, int]] = set()
        counts = output.num_tokens.tolist()
        assert counts == sorted(counts, key=lambda count: count != 1), "rows with one token stand first"
        assert output.num_decodes == sum(count == 1 for count in counts)
        self._check_shared(output)
        for row, count in zip(output.rows.tolist(), counts, strict=True):
            self._write(self.rows[row], count, written, poison)
        if poison:
            return SampledTokens(step_id=output.step_id, rows=output.rows[:0], token_ids=np.empty(0, np.int64))
        sampled: list[int] = []
        vectors: dict[int, NDArray[np.float32]] = {}
        for row, count, samples in zip(output.rows.tolist(), counts, output.samples.tolist(), strict=True):
            state = self.rows[row]
            is_last = state.num_computed == len(state.tokens)
            assert samples == (is_last and state.pooling is None)
            value = self._check(state, state.num_computed - count)
            if state.pooling is not None:
                state.pooled += self._digests(state)[-count:]
                if is_last:
                    vectors[row] = pooled_vector(state.pooled, state.pooling)
            if samples:
                sampled.append(next_token(value, self.vocab))
                state.tokens.append(sampled[-1])
        return SampledTokens(
            step_id=output.step_id,
            rows=output.rows[output.samples],
            token_ids=np.array(sampled, dtype=np.int64),
            vectors=vectors,
        )

    def _check_shared(self, output: SchedulerOutput) -> None:
        """The decode rows have as many leading blocks in common as they are said to, no more, and others behind."""
        decodes = [self.rows[row] for row in output.rows[: output.num_decodes].tolist()]
        full = [group for group, window in enumerate(self.windows) if window is None]
        common = 0
        if len(decodes) > 1 and full and self.prefix_caching:
            tables = [list(zip(*(row.block_ids[group] for group in full), strict=True)) for row in decodes]
            common = sum(1 for _ in itertools.takewhile(lambda c: len(set(c)) == 1, zip(*tables, strict=False)))
        assert output.num_shared_blocks == common, f"{common} blocks are shared, {output.num_shared_blocks} told"
        assert all(row.num_computed >= common * self.block_size for row in decodes), "the step's token is not shared"

    def _write(self, state: WorkerRow, count: int, written: set[tuple[int, int]], poison: bool) -> None:
        assert count >= 1
        start = state.num_computed
        state.num_computed += count
        assert state.num_computed <= len(state.tokens), "a token is computed before it is known"
        values = self._digests(state)
        for position in range(start, state.num_computed):
            for group in range(len(self.windows)):
                slot = self._slot(state, group, position)
                assert slot not in written, f"two rows write slot {slot}"
                written.add(slot)
                self.kv[slot] = (group, -1 if poison else values[position])

    def _check(self, state: WorkerRow, start: int) -> int:
        """Every position that the row's queries from `start` on read holds the row's own content; the last digest."""
        values = self._digests(state)
        size = self.block_size
        for group, window in enumerate(self.windows):
            first = 0 if window is None else max(0, start - window + 1)
            passed = [block_id == 0 for block_id in state.block_ids[group]]
            assert passed == [(column + 1) * size <= first for column in range(len(passed))], (
                f"{state.request_id}, whose queries see from {first} on, has {state.block_ids[group]} in group {group}"
            )
            for position in range(first, state.num_computed):
                assert self.kv[self._slot(state, group, position)] == (group, values[position]), (
                    f"{state.request_id} reads wrong content at position {position} in group {group}"
                )
        return values[-1]

    def _digests(self, state: WorkerRow) -> list[int]:
        values, value = [], state.root
        for token_id in state.tokens[: state.num_computed]:
            value = digest(value, token_id)
            values.append(value)
        return values

    def _slot(self, state: WorkerRow, group: int, position: int) -> tuple[int, int]:
        block_id = state.block_ids[group][position // self.block_size]
        assert 0 < block_id < self.num_blocks, f"block {block_id} is handed out"
        return block_id, position % self.block_size
