"""A simulation that follows an engine's log of steps computes exactly what the engine did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from vcore_policies.eviction.lru import LRUEviction

from vcore.bench.null_model import NULL_MODEL_SPEC, VOCAB_SIZE, write_null_model
from vcore.config import EngineConfig, load_config
from vcore.engine.build import build_engine
from vcore.errors import ConfigError
from vcore.interfaces.step import SchedulerOutput
from vcore.plugins import EvictionPolicySpec, discover
from vcore.scheduler import SchedulerSettings
from vcore.simulate import FleetOptions, Policies, SimulationSettings, StepLoad, StepLog, recorder_spec, simulate
from vcore.simulate.engine_replay import replay_engine, requests_of
from vcore.simulate.logged_times import LoggedTimes, logged_trace
from vcore.traces import Trace, TraceRequest

EVICTED: list[int] = []
"""How many blocks went at a time."""

BLOCK_SIZE, NUM_BLOCKS, MAX_NUM_SEQS, BUDGET = 16, 70, 8, 96


class CountedLRU(LRUEviction):
    """Writes evictions down."""

    def on_evict(self, block_ids: Sequence[int]) -> None:
        EVICTED.append(len(block_ids))
        super().on_evict(block_ids)


LRU = EvictionPolicySpec(name="counted", load=CountedLRU, api="1.0", summary="test")


def conversations() -> Trace:
    """Conversations whose turns repeat what was said, many at a time, in a cache that is too small."""
    rng = np.random.default_rng(7)
    requests: list[TraceRequest] = []
    own = 1000
    for turn in range(6):
        for talk in range(10):
            length = int(rng.integers(20, 40)) + 40 * turn
            ids = [*(talk * 20 + column for column in range(-(-length // BLOCK_SIZE) - 1)), own]
            own += 1  # nobody else's, so that no answer is another's
            arrival = 0.15 * turn + 0.002 * talk
            requests.append(
                TraceRequest(
                    arrival_s=arrival, input_length=length, output_length=int(rng.integers(1, 60)), block_ids=tuple(ids)
                )
            )
    return Trace("conversations", "csv", tuple(sorted(requests, key=lambda one: one.arrival_s)), BLOCK_SIZE)


class Ticks:
    """A clock that goes on by a millisecond whenever it is read, so that a run is the same every time."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def config(tmp_path: Any) -> EngineConfig:
    write_null_model(tmp_path, 512)
    tree = {
        "model": {"path": str(tmp_path), "load_format": "dummy", "skip_tokenizer": True},
        "cache": {"block_size": BLOCK_SIZE, "num_blocks": NUM_BLOCKS, "eviction": "counted"},
        "scheduler": {"max_num_seqs": MAX_NUM_SEQS, "max_num_batched_tokens": BUDGET, "policy": "fcfs"},
        "runtime": {"device": "cpu", "async_scheduling": False, "num_threads": 1},
        "executor": "step_recorder",
    }
    return load_config(tree, {})


def simulated(trace: Trace, config: EngineConfig, log: StepLog, entered: Sequence[int]) -> tuple[StepLog, Any]:
    """The simulation that follows a log, and its own log."""
    own = StepLog()

    def watch(output: SchedulerOutput, load: StepLoad, started: float, ended: float) -> None:
        own.add(output)
        own.entries[-1].seconds = ended - started

    settings = SimulationSettings(
        scheduler=SchedulerSettings(
            max_num_seqs=MAX_NUM_SEQS,
            max_num_batched_tokens=BUDGET,
            max_model_len=512,
            block_size=BLOCK_SIZE,
            num_blocks=NUM_BLOCKS,
            strict=True,
        ),
        policies=Policies(config, discover(config.plugins, objects=[LRU])),
        step_time=LoggedTimes(log),
        fleet=FleetOptions(together=False),
    )
    return own, simulate(logged_trace(trace, log, entered), settings, watcher=watch)


def test_batches_hits_and_evictions_are_those_of_the_engine(config: EngineConfig) -> None:
    trace, log = conversations(), StepLog()
    EVICTED.clear()
    ticks = Ticks()
    engine = build_engine(config, plugins=[NULL_MODEL_SPEC, recorder_spec(log), LRU])
    try:
        timeline, entered = replay_engine(engine.core, list(requests_of(trace, VOCAB_SIZE)), log, ticks)
        stats = engine.core.stats()
    finally:
        engine.core.shutdown()
    evicted = EVICTED.copy()
    EVICTED.clear()
    own, done = simulated(trace, config, log, entered)
    assert [(entry.rows, entry.hits, entry.load) for entry in own.entries] == [
        (entry.rows, entry.hits, entry.load) for entry in log.entries
    ]
    assert evicted == EVICTED
    assert done.stats == (stats,)
    # The trace is one that tells: there is all of it.
    assert sum(evicted) > 100
    assert stats.prefix_hit_tokens > 0
    assert stats.preemptions > 0
    assert done.timeline.num_cached.tolist() == timeline.num_cached.tolist()
    assert done.timeline.num_tokens.tolist() == [one.output_length for one in trace.requests]


def test_a_log_of_something_else_is_refused(config: EngineConfig) -> None:
    trace, log = conversations(), StepLog()
    with pytest.raises(ConfigError, match="the log has 0 steps"):
        simulated(trace, config, log, [0] * len(trace.requests))


def test_a_log_is_followed_step_by_step() -> None:
    with pytest.raises(NotImplementedError, match="step by step"):
        LoggedTimes(StepLog()).decode_seconds(1, 1, 1)
    assert replace(FleetOptions(), together=False).together is False
