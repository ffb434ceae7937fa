"""The decisions of FCFS and of the priority policy."""

from __future__ import annotations

from dataclasses import dataclass

from vcore_policies.scheduling.fcfs import FCFSPolicy
from vcore_policies.scheduling.priority import PriorityPolicy

from vcore.interfaces.scheduling import SchedulingContext

CONTEXT = SchedulingContext(max_num_seqs=4, max_num_batched_tokens=16, block_size=4, num_blocks=10)


@dataclass
class View:
    arrival_index: int
    priority: int = 0


def views(*priorities: int) -> list[View]:
    return [View(arrival, priority) for arrival, priority in enumerate(priorities)]


def test_fcfs_goes_by_arrival_whatever_the_priority() -> None:
    policy = FCFSPolicy(options=None, context=CONTEXT)
    waiting = views(3, 1, 2)
    assert sorted(waiting, key=policy.waiting_key) == waiting  # type: ignore[arg-type]
    assert policy.pick_victim(waiting) == 2  # type: ignore[arg-type]
    assert not policy.should_displace(View(0, -9), View(1, 9))  # type: ignore[arg-type]


def test_priority_goes_by_urgency() -> None:
    policy = PriorityPolicy(options=None, context=CONTEXT)
    assert [policy.waiting_key(view) for view in views(3, -1, 2)] == [3, -1, 2]  # type: ignore[arg-type]
    assert policy.order_running(views(3, 1, 2, 1), 0.0) == [1, 3, 2, 0]  # type: ignore[arg-type]


def test_the_victim_is_the_least_urgent_and_of_those_the_latest() -> None:
    policy = PriorityPolicy(options=None, context=CONTEXT)
    assert policy.pick_victim(views(1, 5, 2)) == 1  # type: ignore[arg-type]
    assert policy.pick_victim(views(5, 1, 5, 2)) == 2  # type: ignore[arg-type]


def test_only_the_strictly_less_urgent_are_displaced() -> None:
    policy = PriorityPolicy(options=None, context=CONTEXT)
    assert policy.should_displace(View(9, 1), View(0, 2))  # type: ignore[arg-type]
    assert not policy.should_displace(View(0, 2), View(9, 2))  # type: ignore[arg-type]
    assert not policy.should_displace(View(0, 3), View(9, 2))  # type: ignore[arg-type]
