"""The scheduler against naive oracles over random lives of engines.

What is checked at every step, beside what `FakeWorker` checks of content: limits, the blocks' owners, and
every prefix hit against an oracle that is told nothing but which tokens were launched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from simulated_engine import SimulatedEngine
from vcore_policies.eviction.fifo import FIFOEviction
from vcore_policies.eviction.lru import LRUEviction
from vcore_policies.scheduling.fcfs import FCFSPolicy
from vcore_policies.scheduling.priority import PriorityPolicy

from vcore.engine.request import RequestStatus
from vcore.errors import RequestTooLargeError
from vcore.interfaces.step import SchedulerOutput
from vcore.pooling_params import PoolingMode
from vcore.scheduler.request import Request

Content = tuple[tuple[str, ...], tuple[int, ...]]  # extra keys, and all tokens up to the end of a block


class PrefixOracle:
    """Which prefixes can be hit, by the rules alone, while nothing has to be evicted."""

    def __init__(self, block_size: int, windows: tuple[int | None, ...]) -> None:
        self.block_size = block_size
        self.windows = windows
        self.cached: set[Content] = set()
        self.silenced: set[str] = set()
        """Requests that ran when the cache was reset: what they compute rests on forgotten content."""

    def hit(self, keys: tuple[str, ...], tokens: list[int], beside: Set[Content] = frozenset()) -> int:
        """Cached tokens of a prompt, with what is in `beside`; at least one is left to compute."""
        size = self.block_size
        there = [
            (keys, tuple(tokens[:end])) in self.cached or (keys, tuple(tokens[:end])) in beside
            for end in range(size, len(tokens), size)
        ]
        hits = range(0, len(tokens), size)
        return max(hit for hit in hits if all(there[position // size] for position in self.seen(hit)))

    def seen(self, token: int) -> range:
        """Positions before `token` that it sees in any group."""
        return range(max(0, min(0 if window is None else token - window + 1 for window in self.windows)), token)

    def blocks(self, keys: tuple[str, ...], tokens: list[int], start: int, end: int) -> set[Content]:
        """The full blocks that are completed by computing tokens `start` to `end`."""
        size = self.block_size
        return {(keys, tuple(tokens[: i * size])) for i in range(start // size + 1, end // size + 1)}


class SchedulerMachine(RuleBasedStateMachine):
    """Requests of few different prompts, aborts, stop strings, failures, resets, in engines of every shape."""

    num_blocks = st.sampled_from([12, 20, 40])
    depths = st.sampled_from([1, 1, 2, 3])

    @initialize(
        data=st.data(),
        block_size=st.sampled_from([1, 2, 4]),
        max_num_seqs=st.sampled_from([1, 3, 8]),
        max_num_batched_tokens=st.sampled_from([3, 8, 40]),
        threshold=st.sampled_from([None, 2, 5]),
        chunked=st.booleans(),
        caching=st.booleans(),
        windows=st.sampled_from([(None,), (None,), (3,), (1,), (None, 6), (2, 11), (None, 1, 5)]),
        policy=st.sampled_from([FCFSPolicy, PriorityPolicy]),
        eviction=st.sampled_from([LRUEviction, FIFOEviction]),
    )
    def start(
        self,
        data: st.DataObject,
        block_size: int,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        threshold: int | None,
        chunked: bool,
        caching: bool,
        windows: tuple[int | None, ...],
        policy: type[FCFSPolicy],
        eviction: type[LRUEviction],
    ) -> None:
        self.engine = SimulatedEngine(
            policy=policy(options=None, context=None),  # type: ignore[arg-type]
            make_eviction=lambda context: eviction(options=None, context=context),
            depth=data.draw(self.depths),
            vocab=12,
            block_size=block_size,
            num_blocks=1 + (data.draw(self.num_blocks) - 1) * len(windows),
            windows=windows,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            max_model_len=60,
            long_prefill_threshold=threshold,
            chunked_prefill=chunked,
            prefix_caching=caching,
            strict=True,
        )

    @property
    def live(self) -> dict[str, Request]:
        return self.engine.scheduler._lifecycle.requests

    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=24),
        max_tokens=st.integers(1, 12),
        priority=st.integers(0, 2),
        keys=st.sampled_from([(), (), ("salt",)]),
        eos=st.sampled_from([(), (3,)]),
        stop=st.sampled_from([(), (4,), tuple(range(3, 14))]),
        copies=st.sampled_from([1, 1, 3]),
        pooling=st.sampled_from([None, None, None, "last", "mean"]),
    )
    def add(
        self,
        prompt: list[int],
        max_tokens: int,
        priority: int,
        keys: tuple[str, ...],
        eos: tuple[int, ...],
        stop: tuple[int, ...],
        copies: int,
        pooling: PoolingMode | None,
    ) -> None:
        params: dict[str, Any] = {"eos": eos, "stop_token_ids": stop, "priority": priority, "pooling": pooling}
        num_computed = len(prompt) + (0 if pooling else max_tokens - 1)
        for _ in range(copies):
            try:
                self.engine.add(prompt, max_tokens, extra_keys=keys, **params)
            except RequestTooLargeError:
                settings = self.engine.settings
                needed = self.most_blocks(num_computed)
                assert needed > settings.num_blocks - 1 or (
                    not settings.chunked_prefill and len(prompt) > settings.max_num_batched_tokens
                )
            else:
                assert self.most_blocks(num_computed) <= self.engine.settings.num_blocks - 1

    def most_blocks(self, num_tokens: int) -> int:
        """By trying every chunk: what a request may hold at a time."""
        settings = self.engine.settings
        size = settings.block_size
        total = 0
        for window in settings.windows:
            counts = [0]
            for start in range(num_tokens):
                first = 0 if window is None else max(0, start - window + 1) // size
                end = min(start + settings.max_chunk, num_tokens)
                counts.append(-(-end // size) - first)
            total += max(counts)
        return total

    @rule()
    def step(self) -> None:
        engine = self.engine
        launched = self.launch_one() if len(engine.in_flight) < engine.depth else None
        if engine.in_flight and (launched is None or len(engine.in_flight) == engine.depth):
            engine.collect()
        elif launched is None:
            engine.take(engine.scheduler.take_finished())

    @precondition(lambda self: len(self.engine.in_flight) < self.engine.depth)
    @rule()
    def launch(self) -> None:
        self.launch_one()

    @precondition(lambda self: self.engine.in_flight)
    @rule()
    def collect(self) -> None:
        self.engine.collect()

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        names = data.draw(st.lists(st.sampled_from(sorted(self.live)), min_size=1, max_size=3))
        self.engine.scheduler.abort([*names, "unknown"])

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def stop_string(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.live)))
        self.engine.scheduler.finish(name, len(self.engine.outputs[name]), "stop")

    @rule(launched=st.booleans())
    def fail(self, launched: bool) -> None:
        if self.may_fail():
            self.engine.fail_step(launched=launched)

    @rule()
    def reset(self) -> None:
        self.engine.scheduler.reset_prefix_cache()

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.engine.run()
            self.engine.check_outputs()
            self.engine.check_idle()
            assert set(self.engine.finished) == set(self.engine.requests)
            assert self.engine.scheduler.faults() == ()

    def launch_one(self) -> SchedulerOutput | None:
        return self.engine.launch()

    def may_fail(self) -> bool:
        return True

    @invariant()
    def blocks_have_the_owners_that_they_count(self) -> None:
        pool = self.engine.scheduler._kv.pool
        owners = Counter(block_id for request in self.live.values() for block_id in request.blocks.held())
        assert pool.ref_counts == [owners[block_id] for block_id in range(pool.num_blocks)]
        for block_id, count in owners.items():
            assert 0 < block_id < pool.num_blocks
            if count > 1 and self.engine.settings.prefix_caching is False:
                raise AssertionError(f"block {block_id} has {count} owners without prefix caching")
        used = set(owners)
        assert sorted([*pool._free, *pool._unused, *used]) == list(range(1, pool.num_blocks))

    @invariant()
    def nobody_holds_more_than_its_share(self) -> None:
        for request in self.live.values():
            held = len(request.blocks.held())
            assert held <= self.engine.scheduler._kv.needs.most_blocks(request.max_num_tokens)

    @invariant()
    def states_agree(self) -> None:
        scheduler = self.engine.scheduler
        statuses = Counter(request.status for request in self.live.values())
        assert scheduler.num_running == statuses[RequestStatus.RUNNING] <= self.engine.settings.max_num_seqs
        assert scheduler.num_waiting == statuses[RequestStatus.WAITING] + statuses[RequestStatus.PREEMPTED]
        rows = [request.row for request in self.live.values() if request.status is RequestStatus.RUNNING]
        assert len(set(rows)) == len(rows)
        for request in self.live.values():
            assert bool(request.blocks.num_columns) == (request.status is RequestStatus.RUNNING)


class PrefixHitMachine(SchedulerMachine):
    """With room for everything, each hit is exactly what the oracle says."""

    num_blocks = st.just(3000)
    depths = st.just(1)

    def __init__(self) -> None:
        super().__init__()
        self.oracle: PrefixOracle | None = None

    def may_fail(self) -> bool:
        # Of two steps in flight the oracle would have to know which blocks are whose.
        return not self.engine.in_flight

    @rule()
    def reset(self) -> None:
        super().reset()
        if self.oracle is not None:
            self.oracle.cached.clear()
            self.oracle.silenced = {row.request_id for row in self.engine.worker.rows.values()}

    def launch_one(self) -> SchedulerOutput | None:
        if self.oracle is None:
            self.oracle = PrefixOracle(self.engine.settings.block_size, self.engine.settings.windows)
        output = super().launch_one()
        if output is not None and self.engine.settings.prefix_caching:
            self.check_hits(output, self.oracle)
        return output

    def check_hits(self, output: SchedulerOutput, oracle: PrefixOracle) -> None:
        filled: list[tuple[str, set[Content]]] = []
        for row, count in zip(output.rows.tolist(), output.num_tokens.tolist(), strict=True):
            state = self.engine.worker.rows[row]
            keys = self.engine.requests[state.request_id].extra_keys
            end = state.num_computed
            filled.append((state.request_id, oracle.blocks(keys, state.tokens, end - count, end)))
        # Those planned before it; a later one may fill the same block, if it is its last and so cannot be a hit.
        before = {name for name, _ in filled} - {new.request_id for new in output.new_rows}
        for new in output.new_rows:
            keys = self.engine.requests[new.request_id].extra_keys
            if new.pooling == "mean":  # it needs every hidden state
                assert new.num_computed_tokens == 0
                oracle.silenced.discard(new.request_id)
                before.add(new.request_id)
                continue
            assert new.num_computed_tokens == oracle.hit(keys, new.token_ids), new.request_id
            oracle.silenced.discard(new.request_id)
            others = set().union(*(contents for name, contents in filled if name in before))
            assert oracle.hit(keys, new.token_ids, others) == new.num_computed_tokens, (
                f"{new.request_id} computes what {before} fill in the same step"
            )
            before.add(new.request_id)
        for request_id, contents in filled:
            if request_id not in oracle.silenced:
                oracle.cached |= contents


def run(machine: type[SchedulerMachine], max_examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("machine", [SchedulerMachine, PrefixHitMachine])
def test_random_lives(machine: type[SchedulerMachine]) -> None:
    run(machine, max_examples=90, steps=40)


@pytest.mark.soak
@pytest.mark.parametrize("machine", [SchedulerMachine, PrefixHitMachine])
def test_random_lives_for_long(machine: type[SchedulerMachine]) -> None:
    run(machine, max_examples=600, steps=100)
