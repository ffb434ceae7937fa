"""A worker without a model, which finds out whether the scheduler ever mixes anything up.

`FakeWorker` keeps rows as a real one does, from `SchedulerOutput` alone. Its KV store holds, for each slot, a
digest of all tokens up to that position (and of the cache salt), and the group of layers that it was written for;
in each step it checks that every position that a row reads, in each group within its window, holds the digest of that
row's own tokens. The next token is a pure function of that digest, so what a request generates must not depend on
scheduling: `generate` computes it alone.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from vcore_policies.eviction.lru import LRUEviction
from vcore_policies.scheduling.fcfs import FCFSPolicy

from vcore.engine.request import EngineRequest, FinishReason
from vcore.engine.step_output import Finished, StepOutput
from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.interfaces.scheduling import SchedulingContext, SchedulingPolicy
from vcore.interfaces.step import SampledTokens, SchedulerOutput
from vcore.sampling_params import SamplingParams
from vcore.scheduler import Scheduler, SchedulerSettings

VOCAB = 50


def digest(previous: int, token_id: int) -> int:
    return zlib.crc32(token_id.to_bytes(4, "little"), previous)


def root_digest(extra_keys: Sequence[str]) -> int:
    return zlib.crc32("/".join(extra_keys).encode())


def next_token(value: int, vocab: int = VOCAB) -> int:
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


@dataclass
class WorkerRow:
    request_id: str
    tokens: list[int]
    num_computed: int
    block_ids: list[list[int]]
    """By group."""
    root: int


class StepFailedError(Exception):
    """The step that the test made fail."""


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
        for row, count, samples in zip(output.rows.tolist(), counts, output.samples.tolist(), strict=True):
            state = self.rows[row]
            assert samples == (state.num_computed == len(state.tokens))
            value = self._check(state, state.num_computed - count)
            if samples:
                sampled.append(next_token(value, self.vocab))
                state.tokens.append(sampled[-1])
        return SampledTokens(
            step_id=output.step_id,
            rows=output.rows[output.samples],
            token_ids=np.array(sampled, dtype=np.int64),
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


class SimulatedEngine:
    """A scheduler, a fake worker, and what every request has given so far."""

    def __init__(
        self,
        *,
        policy: SchedulingPolicy | None = None,
        make_eviction: Callable[[EvictionContext], EvictionPolicy] | None = None,
        depth: int = 1,
        vocab: int = VOCAB,
        **settings: object,
    ) -> None:
        values: dict[str, object] = {
            "max_num_seqs": 8,
            "max_num_batched_tokens": 64,
            "max_model_len": 256,
            "block_size": 4,
            "num_blocks": 200,
        }
        values.update(settings)
        self.settings = SchedulerSettings(**values)  # type: ignore[arg-type]
        context = SchedulingContext(
            max_num_seqs=self.settings.max_num_seqs,
            max_num_batched_tokens=self.settings.max_num_batched_tokens,
            block_size=self.settings.block_size,
            num_blocks=self.settings.num_blocks,
        )
        self.now = 0.0
        self.scheduler = Scheduler(
            self.settings,
            policy if policy is not None else FCFSPolicy(options=None, context=context),
            make_eviction or (lambda context: LRUEviction(options=None, context=context)),
            policy_name="policy-under-test 1.0",
            eviction_name="eviction-under-test 1.0",
            clock=self.tick,
        )
        self.requests: dict[str, EngineRequest] = {}
        self.worker = FakeWorker(
            self.settings.block_size,
            self.settings.num_blocks,
            lambda request_id: root_digest(self.requests[request_id].extra_keys),
            vocab,
            self.settings.windows,
            self.settings.prefix_caching,
        )
        self.depth = depth
        self.in_flight: list[tuple[SchedulerOutput, SampledTokens]] = []
        self.outputs: dict[str, list[int]] = {}
        self.finished: dict[str, Finished] = {}
        self.cached: dict[str, int] = {}
        self.schedules: list[SchedulerOutput] = []
        self._ids = itertools.count()

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    def add(
        self,
        prompt: Iterable[int],
        max_tokens: int = 8,
        *,
        request_id: str | None = None,
        extra_keys: tuple[str, ...] = (),
        eos: tuple[int, ...] = (),
        sample_index: int = 0,
        **params: object,
    ) -> str:
        request = EngineRequest(
            request_id=request_id or f"r{next(self._ids)}",
            prompt_token_ids=list(prompt),
            params=SamplingParams(max_tokens=max_tokens, **params),
            max_tokens=max_tokens,
            arrival_time=self.now,
            eos_token_ids=eos,
            extra_keys=extra_keys,
            sample_index=sample_index,
        )
        self.scheduler.add(request)
        self.requests[request.request_id] = request
        self.outputs[request.request_id] = []
        return request.request_id

    def launch(self) -> SchedulerOutput | None:
        """Schedule and compute a step; `collect` takes it in."""
        output = self.scheduler.schedule()
        if output is not None:
            self.check_limits(output)
            self.schedules.append(output)
            self.in_flight.append((output, self.worker.compute(output)))
        return output

    def collect(self) -> StepOutput:
        output, sampled = self.in_flight.pop(0)
        return self.take(self.scheduler.update(output, sampled))

    def step(self) -> StepOutput:
        """One turn of the engine's loop, with up to `depth` steps in flight."""
        launched = self.launch()
        if launched is not None and len(self.in_flight) < self.depth:
            return StepOutput()
        if not self.in_flight:
            return self.take(self.scheduler.take_finished())
        return self.collect()

    def fail_step(self, *, launched: bool) -> StepOutput | None:
        """Schedule a step that fails, before or after the worker has begun with it; all in flight fails with it."""
        output = self.scheduler.schedule()
        if output is None:
            return None
        if launched:
            self.worker.compute(output, poison=True)
        oldest = self.in_flight[0][0] if self.in_flight else output
        self.in_flight.clear()
        return self.take(self.scheduler.fail(oldest, StepFailedError("made to fail")))

    def take(self, step: StepOutput) -> StepOutput:
        for request_id, token_id in zip(step.request_ids, step.token_ids, strict=True):
            assert request_id not in self.finished, f"{request_id} got a token after its end"
            self.outputs[request_id].append(token_id)
        for request_id, started in step.started.items():
            self.cached[request_id] = started.num_cached_tokens
        for request_id, finished in step.finished.items():
            assert request_id not in self.finished, f"{request_id} ended twice"
            self.finished[request_id] = finished
        return step

    def run(self, max_steps: int = 10_000) -> None:
        """Step until nothing is left."""
        for _ in range(max_steps):
            if not self.scheduler.has_unfinished and not self.in_flight:
                return
            self.step()
        raise AssertionError(f"still unfinished after {max_steps} steps: {self.scheduler.stats()}")

    def check_limits(self, output: SchedulerOutput) -> None:
        rows = output.rows.tolist()
        assert len(set(rows)) == len(rows) > 0
        assert output.num_total_tokens <= self.settings.max_num_batched_tokens
        assert self.scheduler.num_running <= self.settings.max_num_seqs

    def check_outputs(self) -> None:
        """Every request that ended by itself gave what it gives alone; others gave the beginning of it."""
        for request_id, finished in self.finished.items():
            tokens, reason, stop_reason = generate(self.requests[request_id], self.worker.vocab)
            given = self.outputs[request_id]
            assert given == tokens[: len(given)], request_id
            if finished.reason in (FinishReason.STOP, FinishReason.LENGTH) and not isinstance(
                finished.stop_reason, str
            ):
                assert (given, finished.reason, finished.stop_reason) == (tokens, reason, stop_reason)

    def check_idle(self) -> None:
        """Nothing is left over once all requests have ended."""
        stats = self.scheduler.stats()
        assert (stats.running, stats.waiting, stats.used_blocks) == (0, 0, 0), stats
        assert stats.free_blocks == self.settings.num_blocks - 1
        self.scheduler.reset_prefix_cache()
        assert self.scheduler.stats().cached_blocks == 0
