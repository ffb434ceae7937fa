"""The contracts of policies: each mistake is found by the test that names it, and what is right passes."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from vcore.errors import PolicyError
from vcore.interfaces import EvictionContext, EvictionPolicy, QueueingPolicy, RequestView, SchedulingPolicy
from vcore.testing import CostMeter, EvictionPolicyContract, SchedulingPolicyContract, count_kept


class ByKey(SchedulingPolicy):
    max_overtaking_s = 0.0

    def waiting_key(self, request: RequestView) -> int:
        return request.arrival_index


class Newest(ByKey):
    def waiting_key(self, request: RequestView) -> int:
        return -request.arrival_index


class KeepsEnded(ByKey):
    def __init__(self) -> None:
        self.ended: list[RequestView] = []

    def on_finished(self, requests: Sequence[RequestView]) -> None:
        self.ended.extend(requests)


class SharesState(ByKey):
    seen: list[str] = []

    def waiting_key(self, request: RequestView) -> int:
        self.seen.append(request.request_id)
        return request.arrival_index if len(self.seen) <= 4 else -request.arrival_index


class Walks(QueueingPolicy):
    patience = 3

    def __init__(self) -> None:
        self.waiting: dict[int, RequestView] = {}

    def on_waiting(self, request: RequestView) -> None:
        self.waiting[request.arrival_index] = request

    def on_left(self, request: RequestView) -> None:
        del self.waiting[request.arrival_index]

    def walk(self, now: float) -> Iterator[RequestView]:
        return iter([self.waiting[arrival] for arrival in sorted(self.waiting)])


class Copies(Walks):
    def walk(self, now: float) -> Iterator[RequestView]:
        return iter(list(self.waiting.values()))


class LeavesOut(Walks):
    def walk(self, now: float) -> Iterator[RequestView]:
        return iter(list(self.waiting.values())[:1])


class Impatient(Walks):
    patience = None


def scheduling(test: str, policy: Callable[[], SchedulingPolicy], *arguments: Any) -> None:
    getattr(SchedulingPolicyContract(), test)(lambda context, **options: policy(), *arguments)


SCHEDULING_MISTAKES = [
    ("test_nobody_waits_longer_than_it_states", Newest, AssertionError, "s earlier"),
    ("test_nothing_is_kept_of_requests_that_ended", KeepsEnded, AssertionError, "references more"),
    ("test_it_starts_afresh_with_every_engine", SharesState, AssertionError, "order"),
    ("test_a_step_costs_no_more_with_more_who_wait", Walks, AssertionError, "instructions"),
    ("test_a_step_costs_no_more_with_more_who_wait", Copies, AssertionError, "bytes"),
    ("test_steps_that_fail_and_caches_that_are_reset_lose_nobody", LeavesOut, PolicyError, "names all who wait"),
    ("test_a_bound_is_stated", Impatient, AssertionError, "patience is None"),
]


@pytest.mark.parametrize(("test", "policy", "error", "message"), SCHEDULING_MISTAKES, ids=lambda value: str(value))
def test_a_mistake_of_a_scheduling_policy_is_found(
    test: str, policy: Callable[[], SchedulingPolicy], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        scheduling(test, policy)


@pytest.mark.parametrize("test", [mistake[0] for mistake in SCHEDULING_MISTAKES])
def test_what_is_right_passes(test: str) -> None:
    scheduling(test, ByKey)


class Oldest(EvictionPolicy):
    def __init__(self, context: EvictionContext) -> None:
        self.view = context.view
        self.unused: OrderedDict[int, None] = OrderedDict()

    def on_insert(self, block_ids: Sequence[int]) -> None: ...

    def on_hit(self, block_ids: Sequence[int]) -> None:
        for block_id in block_ids:
            self.unused.pop(block_id, None)

    def on_free(self, block_ids: Sequence[int]) -> None:
        self.unused.update(dict.fromkeys(block_ids))

    def on_evict(self, block_ids: Sequence[int]) -> None:
        Oldest.on_hit(self, block_ids)

    def pick_victims(self, count: int) -> Sequence[int]:
        return list(islice(self.unused, count))


class TakesOut(Oldest):
    def pick_victims(self, count: int) -> Sequence[int]:
        return [self.unused.popitem(last=False)[0] for _ in range(count)]


class MissesHits(Oldest):
    def on_hit(self, block_ids: Sequence[int]) -> None: ...


class KeepsEvicted(Oldest):
    def on_evict(self, block_ids: Sequence[int]) -> None: ...


class Remembers(Oldest):
    def __init__(self, context: EvictionContext) -> None:
        super().__init__(context)
        self.contents: set[bytes] = set()

    def on_insert(self, block_ids: Sequence[int]) -> None:
        self.contents.update(map(self.view.content, block_ids))


class Sorts(Oldest):
    def pick_victims(self, count: int) -> Sequence[int]:
        return sorted(self.unused)[:count]


class LooksAtAll(Oldest):
    def pick_victims(self, count: int) -> Sequence[int]:
        victims: list[int] = []
        for block_id in self.unused:
            if len(victims) < count:
                victims.append(block_id)
        return victims


class PassesUsed(Oldest):
    """What is in use stays in the queue."""

    def __init__(self, context: EvictionContext) -> None:
        super().__init__(context)
        self.queue: OrderedDict[int, None] = OrderedDict()

    def on_insert(self, block_ids: Sequence[int]) -> None:
        self.queue.update(dict.fromkeys(block_ids))

    def on_evict(self, block_ids: Sequence[int]) -> None:
        super().on_evict(block_ids)
        for block_id in block_ids:
            del self.queue[block_id]

    def pick_victims(self, count: int) -> Sequence[int]:
        return list(islice((block_id for block_id in self.queue if block_id in self.unused), count))


class Global(Oldest):
    everything: OrderedDict[int, None] = OrderedDict()

    def __init__(self, context: EvictionContext) -> None:
        super().__init__(context)
        self.unused = self.everything


def eviction(test: str, policy: Callable[[EvictionContext], EvictionPolicy]) -> None:
    arguments = [(None,)] if test == "test_every_life_gives_only_right_answers" else []
    getattr(EvictionPolicyContract(), test)(lambda context, **options: policy(context), *arguments)


EVICTION_MISTAKES = [
    ("test_every_life_gives_only_right_answers", TakesOut, "asked twice|gave"),
    ("test_every_life_gives_only_right_answers", MissesHits, "in use"),
    ("test_withdrawn_blocks_are_forgotten", KeepsEvicted, "in use"),
    ("test_what_it_remembers_has_an_end", Remembers, "references more"),
    ("test_an_event_costs_no_more_in_a_larger_cache", LooksAtAll, "instructions"),
    ("test_an_event_costs_no_more_in_a_larger_cache", Sorts, "bytes"),
    ("test_an_event_costs_no_more_where_more_is_in_use", PassesUsed, "instructions"),
    ("test_it_starts_afresh_with_every_engine", Global, "not cached"),
]


@pytest.mark.parametrize(("test", "policy", "message"), EVICTION_MISTAKES, ids=lambda value: str(value))
def test_a_mistake_of_an_eviction_policy_is_found(
    test: str, policy: Callable[[EvictionContext], EvictionPolicy], message: str
) -> None:
    with pytest.raises((AssertionError, PolicyError), match=message):
        eviction(test, policy)


@pytest.mark.parametrize("test", sorted({mistake[0] for mistake in EVICTION_MISTAKES}))
def test_an_eviction_policy_that_is_right_passes(test: str) -> None:
    eviction(test, Oldest)


# What they count with


def test_instructions_and_memory_are_counted_only_while_it_is_watched() -> None:
    class Works:
        def loop(self, count: int) -> int:
            return sum(one for one in range(count))

        def copy(self, count: int) -> int:
            return len([None] * count)

    works = Works()
    meter = CostMeter(works, ["loop", "copy"])
    works.loop(1000)
    for count in (10, 1000):
        with meter.watch():
            works.loop(count)
    assert 1010 < meter.instructions * 2 < 20_000
    meter = CostMeter(works, ["copy"])
    with meter.watch():
        works.copy(10_000)
    assert 80_000 <= meter.num_bytes < 100_000
    assert meter.instructions < 100


def test_what_is_kept_is_counted_to_the_end_of_what_is_the_policys_own() -> None:
    empty = count_kept(Remembers(EvictionContext(view=None, num_blocks=1, block_size=1)))  # type: ignore[arg-type]
    policy = Remembers(EvictionContext(view=None, num_blocks=1, block_size=1))  # type: ignore[arg-type]
    policy.contents.update(bytes([number]) for number in range(100))
    assert count_kept(policy) - empty == 100


# Where a case finds its policy


FILE = """
from vcore.interfaces import SchedulingPolicy
from vcore.plugins import SchedulingPolicySpec, hookimpl

class ByArrival(SchedulingPolicy):
    def __init__(self, *, options, context): ...
    def waiting_key(self, request): return request.arrival_index

@hookimpl
def vcore_scheduling_policies():
    return [SchedulingPolicySpec(name="mine", load=":ByArrival", api="1.0", summary="As they come")]
"""


CASES = """
from pathlib import Path
from vcore.testing import SchedulingPolicyContract

class TestMine(SchedulingPolicyContract):
    policy = "mine"
    plugins = (Path("mine.py"),)
    states_a_bound = False

class TestOther(SchedulingPolicyContract):
    policy = "other"
"""


def test_a_case_finds_its_policy_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE, encoding="utf-8")
    (tmp_path / "test_mine.py").write_text(CASES, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "found or afresh or fit"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "3 passed, " in found.stdout, found.stdout
    assert "3 errors" in found.stdout
    assert "called 'other'" in found.stdout
