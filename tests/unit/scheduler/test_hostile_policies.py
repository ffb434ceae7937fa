"""Scheduling policies that raise or answer nonsense: named once, replaced by arrival, and nobody is harmed."""

from __future__ import annotations

import itertools
import logging
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from simulated_engine import SimulatedEngine
from vcore_policies.eviction.lru import LRUEviction

from vcore.errors import PolicyError
from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.interfaces.scheduling import QueueingPolicy, RequestView, SchedulingPolicy


class Base(SchedulingPolicy):
    """Serves in the order of arrival."""

    def waiting_key(self, request: RequestView) -> Any:
        return request.arrival_index


class Queueing(QueueingPolicy):
    """The same, by a queue of its own."""

    def __init__(self) -> None:
        self._waiting: dict[int, RequestView] = {}

    def on_waiting(self, request: RequestView) -> None:
        self._waiting[request.arrival_index] = request

    def on_left(self, request: RequestView) -> None:
        del self._waiting[request.arrival_index]

    def walk(self, now: float) -> Iterator[RequestView]:
        return iter([self._waiting[arrival] for arrival in sorted(self._waiting)])


def breaks_off(self: Queueing, now: float) -> Iterator[RequestView]:
    yield from list(self._waiting.values())[:1]
    raise RuntimeError("lost")


def minds_the_end(self: Queueing, now: float) -> Iterator[RequestView]:
    try:
        yield from list(self._waiting.values())
    finally:
        sys.exit("not so soon")


class Grumpy:
    """A key that does not want to be compared, with anything but itself for equality."""

    def __lt__(self, other: object) -> bool:
        raise RuntimeError("do not compare me")


class Endless(list[int]):
    def __iter__(self):  # type: ignore[no-untyped-def]
        return itertools.repeat(0)


def broken(*args: object) -> Any:
    raise RuntimeError("broken")


def answers(value: object) -> Callable[..., Any]:
    return lambda self, *args: value


HOSTILE: dict[str, tuple[str, Callable[..., Any]]] = {
    "key raises": ("waiting_key", broken),
    "key is None": ("waiting_key", answers(None)),
    "key is NaN": ("waiting_key", answers(float("nan"))),
    "keys of two types": ("waiting_key", lambda self, r: r.arrival_index if r.arrival_index % 2 else "text"),
    "keys that refuse to be compared": ("waiting_key", lambda self, r: Grumpy()),
    "keys that are late to refuse": ("waiting_key", lambda self, r: Grumpy() if r.arrival_index == 7 else 1),
    "rank raises": ("rank_waiting", broken),
    "rank repeats": ("rank_waiting", lambda self, requests, now: [0] * len(requests) + [0]),
    "rank is short": ("rank_waiting", lambda self, requests, now: list(range(len(requests)))[1:]),
    "rank is a number": ("rank_waiting", answers(3)),
    "rank is endless": ("rank_waiting", lambda self, requests, now: Endless(range(len(requests)))),
    "window is nonsense": ("waiting_window", "wide"),
    "window is 0": ("waiting_window", 0),
    "order raises": ("order_running", broken),
    "order ends the process": ("order_running", lambda self, running, now: sys.exit("enough")),
    "order is out of range": ("order_running", lambda self, running, now: [i + 1 for i in range(len(running))]),
    "order is of floats": ("order_running", lambda self, running, now: [float(i) for i in range(len(running))]),
    "victim raises": ("pick_victim", broken),
    "victim ends the process": ("pick_victim", lambda self, running: sys.exit(0)),
    "victim out of range": ("pick_victim", lambda self, running: len(running)),
    "victim negative": ("pick_victim", answers(-1)),
    "victim None": ("pick_victim", answers(None)),
    "displace raises": ("should_displace", broken),
    "displace maybe": ("should_displace", answers("maybe")),
    "cap raises": ("max_prefill_tokens", broken),
    "cap negative": ("max_prefill_tokens", answers(-5)),
    "cap is text": ("max_prefill_tokens", answers("7")),
    "admitted raises": ("on_admitted", broken),
    "tokens raises": ("on_tokens", broken),
    "finished raises": ("on_finished", broken),
    "reject raises": ("reject", broken),
    "reject says nothing": ("reject", answers("")),
    "reject says True": ("reject", answers(True)),
    "patience is 0": ("patience", 0),
    "patience is text": ("patience", "much"),
    "waiting raises": ("on_waiting", broken),
    "left raises": ("on_left", broken),
    "walk raises": ("walk", broken),
    "walk breaks off": ("walk", breaks_off),
    "walk minds its end": ("walk", minds_the_end),
    "walk is a list": ("walk", lambda self, now: list(self._waiting.values())),
    "walk is empty": ("walk", lambda self, now: iter(())),
    "walk leaves some out": ("walk", lambda self, now: iter(list(self._waiting.values())[:1])),
    "walk repeats": ("walk", lambda self, now: itertools.cycle(list(self._waiting.values())[:1])),
    "walk names nobody": ("walk", lambda self, now: iter(["r0"])),
}


def hostile_policy(name: str) -> SchedulingPolicy:
    method, value = HOSTILE[name]
    body: dict[str, object] = {method: value}
    if method == "waiting_window":
        body["rank_waiting"] = lambda self, requests, now: None
    return type("Hostile", (Queueing if hasattr(Queueing, method) and not hasattr(Base, method) else Base,), body)()


def busy_engine(policy: SchedulingPolicy, **settings: object) -> SimulatedEngine:
    """Too little of everything, so that every question is asked."""
    # A walk goes on beyond its first request only if there are tokens for more than one prompt.
    budget = 11 if isinstance(policy, Queueing) else 6
    return SimulatedEngine(policy=policy, max_num_seqs=3, num_blocks=10, max_num_batched_tokens=budget, **settings)


def load(engine: SimulatedEngine) -> None:
    for i in range(10):
        engine.add(range(i * 10, i * 10 + 8), 12, request_id=f"r{i}")


@pytest.mark.parametrize("name", HOSTILE)
def test_the_fault_is_named_once_and_every_request_is_served(name: str, caplog: pytest.LogCaptureFixture) -> None:
    engine = busy_engine(hostile_policy(name))
    with caplog.at_level(logging.ERROR):
        load(engine)
        engine.run()
    engine.check_outputs()
    engine.check_idle()
    (fault,) = engine.scheduler.faults()
    call = HOSTILE[name][0]
    assert fault.startswith(f"policy-under-test 1.0: {call} ")
    assert "; expected " in fault
    assert len(caplog.records) == 1
    assert "served by arrival" in caplog.text


@pytest.mark.parametrize("name", HOSTILE)
def test_from_then_on_requests_are_served_by_arrival(name: str) -> None:
    engine = busy_engine(hostile_policy(name))
    load(engine)
    engine.run()
    load(engine_without_finished(engine))
    first = len(engine.schedules)
    engine.run()
    admitted = [new.request_id for output in engine.schedules[first:] for new in output.new_rows]
    assert list(dict.fromkeys(admitted)) == [f"r{i}" for i in range(10)]


def engine_without_finished(engine: SimulatedEngine) -> SimulatedEngine:
    engine.finished.clear()
    return engine


@pytest.mark.parametrize("name", HOSTILE)
def test_strict_makes_it_fatal(name: str) -> None:
    with pytest.raises(PolicyError, match=r"policy-under-test 1\.0.*plugins\.strict"):  # noqa: PT012
        engine = busy_engine(hostile_policy(name), strict=True)
        load(engine)
        engine.run()


def test_the_order_of_admission_changes_at_the_fault() -> None:
    class LastFirst(Base):
        def waiting_key(self, request: RequestView) -> int:
            if request.arrival_index == 3:
                raise RuntimeError("no more")
            return -request.arrival_index

    engine = SimulatedEngine(policy=LastFirst(), max_num_seqs=1)
    for i in range(3):
        engine.add([i], 1, request_id=f"r{i}")
    engine.step()
    engine.add([3], 1, request_id="r3")
    engine.run()
    admitted = [new.request_id for output in engine.schedules for new in output.new_rows]
    assert admitted == ["r2", "r0", "r1", "r3"]


class Erratic(Base):
    """Legal but senseless answers to every question."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.waiting_window = self._random.randint(1, 4)

    def waiting_key(self, request: RequestView) -> float:
        return self._random.random()

    def rank_waiting(self, requests: Sequence[RequestView], now: float) -> list[int] | None:
        return self._random.choice([None, self._shuffled(len(requests))])

    def order_running(self, running: Sequence[RequestView], now: float) -> list[int]:
        return self._shuffled(len(running))

    def pick_victim(self, running: Sequence[RequestView]) -> int:
        return self._random.randrange(len(running))

    def should_displace(self, waiting: RequestView, victim: RequestView) -> bool:
        return self._random.random() < 0.7

    def max_prefill_tokens(self, num_running: int, num_waiting: int) -> int | None:
        return self._random.choice([None, 0, 1, 5])

    def _shuffled(self, count: int) -> list[int]:
        return self._random.sample(range(count), count)


class ErraticEviction(LRUEviction):
    """Any unused blocks, in any order."""

    def __init__(self, seed: int, context: EvictionContext) -> None:
        super().__init__(options=None, context=context)
        self._random = random.Random(seed)

    def pick_victims(self, count: int) -> list[int]:
        return self._random.sample(list(self._unused), count)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("depth", [1, 2])
def test_senseless_policies_change_only_the_order(seed: int, depth: int) -> None:
    def make(context: EvictionContext) -> EvictionPolicy:
        return ErraticEviction(seed, context)

    engine = SimulatedEngine(
        policy=Erratic(seed),
        make_eviction=make,
        depth=depth,
        max_num_seqs=3,
        num_blocks=10,
        max_num_batched_tokens=6,
        strict=True,
    )
    load(engine)
    engine.run(20_000)
    engine.check_outputs()
    engine.check_idle()
    assert engine.scheduler.stats().preemptions > 0


def test_a_failing_eviction_policy_is_among_the_faults() -> None:
    class Nothing(LRUEviction):
        def pick_victims(self, count: int) -> list[int]:
            return []

    engine = SimulatedEngine(make_eviction=lambda context: Nothing(options=None, context=context), num_blocks=10)
    load(engine)
    engine.run()
    engine.check_outputs()
    assert [fault.split(":")[0] for fault in engine.scheduler.faults()] == ["eviction-under-test 1.0"]
