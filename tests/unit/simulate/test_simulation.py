"""A simulation with its uneventful steps made together is, in every respect, the one that makes each for itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcore.bench.serve.slo import Slo
from vcore.config import load_config
from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.interfaces.scheduling import RequestView, SchedulingContext, SchedulingPolicy
from vcore.interfaces.step import SchedulerOutput
from vcore.plugins import EvictionPolicySpec, SchedulingPolicySpec, discover
from vcore.scheduler import SchedulerSettings
from vcore.simulate import FleetOptions, Policies, SimulationSettings, StepLoad, StepTimeModel, simulate
from vcore.simulate.report import describe
from vcore.traces import Trace, TraceRequest

EVENTS: list[tuple[Any, ...]] = []
"""What policies heard, in order."""

STEP_TIME = StepTimeModel(
    base_s=0.011,
    token_s=0.0013,
    knee_tokens=3,
    prefill_row_s=0.0007,
    pair_s=1e-5,
    prefill_kv_token_s=2e-5,
    decode_row_s=0.0003,
    kv_token_s=3e-5,
)


class ListeningEviction(EvictionPolicy):
    """The block that is free for longest goes first; writes down all that it hears."""

    def __init__(self, *, options: None, context: EvictionContext) -> None:
        self._free: dict[int, None] = {}
        self._clock = context.clock

    def on_insert(self, block_ids: Sequence[int]) -> None:
        EVENTS.append(("insert", self._clock(), *block_ids))

    def on_hit(self, block_ids: Sequence[int]) -> None:
        EVENTS.append(("hit", self._clock(), *block_ids))
        for block_id in block_ids:
            self._free.pop(block_id, None)

    def on_free(self, block_ids: Sequence[int]) -> None:
        EVENTS.append(("free", self._clock(), *block_ids))
        self._free.update(dict.fromkeys(block_ids))

    def on_evict(self, block_ids: Sequence[int]) -> None:
        EVENTS.append(("evict", self._clock(), *block_ids))
        for block_id in block_ids:
            self._free.pop(block_id, None)

    def pick_victims(self, count: int) -> list[int]:
        EVENTS.append(("pick", self._clock(), count))
        return list(self._free)[:count]


class ListeningOrder(SchedulingPolicy):
    """By arrival; writes down what it hears of tokens, with what it sees of the requests then."""

    def __init__(self, *, options: None, context: SchedulingContext) -> None:
        pass

    def waiting_key(self, request: RequestView) -> int:
        return request.arrival_index

    def on_tokens(self, requests: Sequence[RequestView], num_tokens: Sequence[int]) -> None:
        for request, count in zip(requests, num_tokens, strict=True):
            seen = request.num_tokens, request.num_computed_tokens, request.num_output_tokens, request.max_tokens
            EVENTS.append(("tokens", request.request_id, count, *seen))

    def on_finished(self, requests: Sequence[RequestView]) -> None:
        EVENTS.append(("finished", *(request.request_id for request in requests)))


class NewestFirst(SchedulingPolicy):
    """The latest arrival first, by a rank that is asked each step."""

    def __init__(self, *, options: None, context: SchedulingContext) -> None:
        pass

    def waiting_key(self, request: RequestView) -> int:
        return 0

    def rank_waiting(self, requests: Sequence[RequestView], now: float) -> list[int]:
        EVENTS.append(("rank", now, *(request.request_id for request in requests)))
        return list(range(len(requests)))[::-1]


class EvenOnly(SchedulingPolicy):
    """Refuses every other request."""

    def __init__(self, *, options: None, context: SchedulingContext) -> None:
        pass

    def waiting_key(self, request: RequestView) -> int:
        return request.arrival_index

    def reject(self, request: RequestView) -> str | None:
        return "odd" if int(request.request_id) % 2 else None


class TakesLists(SchedulingPolicy):
    """By arrival; empties what it is given."""

    def __init__(self, *, options: None, context: SchedulingContext) -> None:
        pass

    def waiting_key(self, request: RequestView) -> int:
        return request.arrival_index

    def on_tokens(self, requests: list[RequestView], num_tokens: list[int]) -> None:  # type: ignore[override]  # the point
        EVENTS.append(("tokens", len(requests), sum(num_tokens)))
        requests.clear()
        num_tokens.clear()


PLUGINS = [
    SchedulingPolicySpec(name="taking", load=TakesLists, api="1.0", summary="test"),
    EvictionPolicySpec(name="listening", load=ListeningEviction, api="1.0", summary="test"),
    SchedulingPolicySpec(name="listening", load=ListeningOrder, api="1.0", summary="test"),
    SchedulingPolicySpec(name="newest", load=NewestFirst, api="1.0", summary="test"),
]


@pytest.fixture(scope="module")
def policies() -> Callable[..., Policies]:
    """Policies by the names of the ones for scheduling and routing."""
    known: dict[tuple[str, str], Policies] = {}

    def make(name: str, routing: str = "auto") -> Policies:
        if (name, routing) not in known:
            names = {"cache.eviction": "listening", "scheduler.policy": name, "simulation.routing": routing}
            config = load_config(None, names)
            known[name, routing] = Policies(config, discover(config.plugins, objects=PLUGINS))
        return known[name, routing]

    return make


@st.composite
def traces(draw: st.DrawFn, *, block_size: int = 4) -> Trace:
    """Bursts and pauses, prompts that share beginnings, priorities."""
    arrivals = np.cumsum(draw(st.lists(st.sampled_from([0.0, 0.01, 0.05, 0.7]), min_size=1, max_size=14)))
    requests = []
    for arrival in (arrivals - arrivals[0]).tolist():
        length = draw(st.integers(1, 30))
        family = draw(st.integers(0, 2))
        requests.append(
            TraceRequest(
                arrival_s=arrival,
                input_length=length,
                output_length=draw(st.integers(1, 25)),
                block_ids=tuple(family * 100 + column for column in range(-(-length // block_size))),
                priority=draw(st.integers(0, 2)),
            )
        )
    return Trace("drawn", "csv", tuple(requests), block_size)


def outcome(trace: Trace, chosen: SimulationSettings, *, together: bool) -> dict[str, Any]:
    """All that can be seen of a simulation."""
    EVENTS.clear()
    fleet = replace(chosen.fleet, together=together)
    admissions: list[tuple[Any, ...]] = []

    def watch(output: SchedulerOutput, load: StepLoad, started: float, ended: float) -> None:
        if output.new_rows:
            ids = [new.request_id for new in output.new_rows]
            admissions.append((output.step_id, ids, output.rows.tolist(), load, started, ended))

    done = simulate(trace, replace(chosen, fleet=fleet), watcher=watch)
    timeline = done.timeline
    values, weights = timeline.gaps()
    names = ("started", "first", "last", "finished", "num_tokens", "num_cached", "num_preemptions", "rejected")
    return {
        "events": EVENTS.copy(),
        "admissions": admissions,
        "gaps": sorted(np.repeat(values, weights).tolist()),
        "steps": done.steps,
        "stats": done.stats,
        "faults": done.faults,
        **{name: getattr(timeline, name).tolist() for name in names},
    }


@given(
    trace=traces(),
    policy=st.sampled_from(["fcfs", "priority", "listening", "newest", "taking"]),
    block_size=st.sampled_from([1, 2, 4]),
    spare=st.integers(0, 40),
    max_num_seqs=st.integers(1, 6),
    budget=st.integers(6, 40),
    prefix_caching=st.booleans(),
    replicas=st.integers(1, 2),
    routing=st.sampled_from(["round_robin", "least_loaded", "power_of_two", "prefix_aware"]),
)
@settings(max_examples=120, deadline=None)
def test_steps_made_together_change_nothing(
    policies: Callable[..., Policies],
    trace: Trace,
    policy: str,
    block_size: int,
    spare: int,
    max_num_seqs: int,
    budget: int,
    prefix_caching: bool,
    replicas: int,
    routing: str,
) -> None:
    longest = max(one.input_length + one.output_length for one in trace.requests)
    chosen = SimulationSettings(
        scheduler=SchedulerSettings(
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=budget,
            max_model_len=longest,
            block_size=block_size,
            num_blocks=-(-longest // block_size) + spare + 1,
            prefix_caching=prefix_caching,
            strict=True,
        ),
        policies=policies(policy, routing),
        step_time=STEP_TIME,
        fleet=FleetOptions(replicas=replicas),
    )
    assert outcome(trace, chosen, together=True) == outcome(trace, chosen, together=False)


def test_a_policy_refuses_and_the_rest_goes_on() -> None:
    trace = Trace("t", "csv", tuple(TraceRequest(arrival_s=0.1 * n, input_length=5, output_length=4) for n in range(6)))
    spec = SchedulingPolicySpec(name="even", load=EvenOnly, api="1.0", summary="test")
    config = load_config(None, {"cache.eviction": "lru", "scheduler.policy": "even"})
    chosen = SimulationSettings(
        scheduler=SchedulerSettings(
            max_num_seqs=4, max_num_batched_tokens=64, max_model_len=64, block_size=4, num_blocks=40, strict=True
        ),
        policies=Policies(config, discover(config.plugins, objects=[spec])),
        step_time=STEP_TIME,
        fleet=FleetOptions(slo=Slo(ttft=100.0)),
    )
    done = simulate(trace, chosen)
    answer = describe(done)
    assert done.timeline.rejected.tolist() == [False, True] * 3
    assert (answer["completed"], answer["rejected"], answer["goodput"]["share"]) == (3, 3, 0.5)


def test_policies_do_not_learn_how_long_an_answer_will_be(policies: Callable[..., Policies]) -> None:
    requests = tuple(TraceRequest(arrival_s=0.0, input_length=5, output_length=n) for n in (2, 9))
    trace = Trace("t", "csv", requests)
    settings = SchedulerSettings(
        max_num_seqs=4, max_num_batched_tokens=64, max_model_len=64, block_size=4, num_blocks=40, strict=True
    )
    chosen = SimulationSettings(
        scheduler=settings, policies=policies("listening"), step_time=STEP_TIME, fleet=FleetOptions()
    )
    seen = outcome(trace, chosen, together=True)
    assert seen["num_tokens"] == [2, 9]
    assert {event[-1] for event in seen["events"] if event[0] == "tokens"} == {9}  # max_tokens, of both


@pytest.mark.parametrize(("others_at", "hits"), [(50.0, True), (150.0, False)])
def test_a_pinned_prefix_expires_by_simulated_seconds(others_at: float, hits: bool) -> None:
    pinned = TraceRequest(arrival_s=0.0, input_length=17, output_length=2, block_ids=(1, 2, 3, 4, 5), cache_ttl=100.0)
    others = [
        TraceRequest(
            arrival_s=others_at + n, input_length=16, output_length=2, block_ids=tuple(range(10 * n, 10 * n + 4))
        )
        for n in (1, 2, 3)
    ]
    trace = Trace("t", "csv", (pinned, *others, replace(pinned, arrival_s=others_at + 10.0)), 4)
    config = load_config(None, {"cache.eviction": "ttl", "scheduler.policy": "fcfs"})
    chosen = SimulationSettings(
        scheduler=SchedulerSettings(
            max_num_seqs=4, max_num_batched_tokens=64, max_model_len=64, block_size=4, num_blocks=13, strict=True
        ),
        policies=Policies.of(config),
        step_time=STEP_TIME,
        fleet=FleetOptions(),
    )
    found = simulate(trace, chosen).timeline.num_cached.tolist()
    assert found[:4] == [0, 0, 0, 0]
    assert (found[4] == 16) is hits
