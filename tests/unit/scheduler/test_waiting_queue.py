"""The queue of those who wait: order, passing over, leaving, sweeping."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vcore_policies.eviction.lru import LRUEviction

from vcore.engine.request import EngineRequest
from vcore.interfaces.scheduling import QueueingPolicy, RequestView, SchedulingPolicy
from vcore.kv_cache import KVCacheManager
from vcore.sampling_params import SamplingParams
from vcore.scheduler.checked_policy import CheckedPolicy
from vcore.scheduler.request import PolicyView, Request
from vcore.scheduler.row_table import RowTable
from vcore.scheduler.waiting_queue import WaitingQueue


class ByPriority(SchedulingPolicy):
    def waiting_key(self, request: RequestView) -> Any:
        return request.priority


class Fixture:
    def __init__(self, policy: SchedulingPolicy | None = None) -> None:
        self.queue = WaitingQueue(CheckedPolicy(policy or ByPriority(), "test", strict=False))
        self.kv = KVCacheManager(4, 4, lambda c: LRUEviction(options=None, context=c), eviction_name="lru")
        self.table = RowTable(1)
        self.count = 0

    def push(self, priority: int = 0) -> Request:
        engine = EngineRequest(
            request_id=f"r{self.count}",
            prompt_token_ids=[1],
            params=SamplingParams(priority=priority),
            max_tokens=1,
            arrival_time=0.0,
        )
        request = Request(engine, self.count, self.kv.open((), priority))
        request.view = PolicyView(request, self.table.num_computed, self.kv)
        self.count += 1
        self.queue.push(request)
        return request

    def drain(self) -> list[int]:
        """Arrivals in the order of the queue; all are popped."""
        self.queue.open(0.0)
        order = []
        while (request := self.queue.peek()) is not None:
            order.append(request.arrival_index)
            self.queue.pop()
        self.queue.close()
        return order


def test_the_key_decides_and_arrival_breaks_ties() -> None:
    fixture = Fixture()
    for priority in (3, 1, 3, 1, 2):
        fixture.push(priority)
    assert fixture.drain() == [1, 3, 4, 0, 2]
    assert len(fixture.queue) == 0


def test_who_is_passed_over_keeps_the_place() -> None:
    fixture = Fixture()
    for _ in range(3):
        fixture.push()
    fixture.queue.open(0.0)
    fixture.queue.peek()
    fixture.queue.skip()
    following = fixture.queue.peek()
    assert following is not None
    assert following.arrival_index == 1
    fixture.queue.close()
    assert len(fixture.queue) == 3
    assert fixture.drain() == [0, 1, 2]


def test_who_leaves_is_not_met_again_and_the_heap_does_not_grow_for_ever() -> None:
    fixture = Fixture()
    stays = fixture.push(-1)
    for _ in range(500):
        fixture.queue.discard(fixture.push())
    assert len(fixture.queue) == 1
    assert len(fixture.queue._order._heap) < 100
    assert fixture.drain() == [stays.arrival_index]


def test_a_ranked_window_stands_before_the_rest() -> None:
    class Backwards(ByPriority):
        waiting_window = 3

        def rank_waiting(self, requests: Any, now: float) -> list[int]:
            return list(reversed(range(len(requests))))

    fixture = Fixture(Backwards())
    for _ in range(5):
        fixture.push()
    assert fixture.drain() == [2, 1, 0, 3, 4]


class LastFirst(SchedulingPolicy):
    patience = 3

    def waiting_key(self, request: RequestView) -> Any:
        return -request.arrival_index


def test_who_arrived_first_has_a_turn_once_patience_is_at_an_end() -> None:
    fixture = Fixture(LastFirst())
    for _ in range(9):
        fixture.push()
    assert fixture.drain() == [8, 7, 6, 0, 5, 4, 3, 1, 2]


def test_a_turn_that_cannot_be_taken_is_kept() -> None:
    fixture = Fixture(LastFirst())
    for _ in range(6):
        fixture.push()
    fixture.queue.open(0.0)
    order = []
    while (request := fixture.queue.peek()) is not None:
        if request.arrival_index == 0:
            fixture.queue.skip()
        else:
            order.append(request.arrival_index)
            fixture.queue.pop()
    fixture.queue.close()
    assert order == [5, 4, 3, 2, 1]
    fixture.push()
    assert fixture.drain() == [0, 6]


def test_turns_go_by_who_waits_now() -> None:
    fixture = Fixture(LastFirst())
    requests = [fixture.push() for _ in range(8)]
    fixture.queue.discard(requests[0])
    fixture.queue.discard(requests[1])
    assert fixture.drain() == [7, 6, 5, 2, 4, 3]


class Walking(QueueingPolicy):
    """Even arrivals first; hears and tells what happens meanwhile."""

    def __init__(self) -> None:
        self.waiting: list[RequestView] = []
        self.events: list[str] = []

    def on_waiting(self, request: RequestView) -> None:
        self.waiting.append(request)

    def on_left(self, request: RequestView) -> None:
        self.waiting.remove(request)
        self.events.append(f"left {request.arrival_index}")

    def walk(self, now: float) -> Iterator[RequestView]:
        try:
            for request in sorted(self.waiting, key=lambda view: (view.arrival_index % 2, view.arrival_index)):
                self.events.append(f"asked at {now}")
                yield request
        finally:
            self.events.append("closed")


def test_a_policy_walks_through_its_own_queue() -> None:
    policy = Walking()
    fixture = Fixture(policy)
    requests = [fixture.push() for _ in range(5)]
    fixture.queue.discard(requests[0])
    queue = fixture.queue
    queue.open(7.0)
    first = queue.peek()
    assert first is queue.peek() is requests[2]
    queue.pop()
    assert queue.peek() is requests[4]
    queue.skip()
    assert queue.peek() is requests[1]
    queue.close()
    assert policy.events == ["left 0", "asked at 7.0", "left 2", "asked at 7.0", "asked at 7.0", "closed"]
    assert fixture.drain() == [4, 1, 3]
