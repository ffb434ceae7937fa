"""`PriorityPolicy`: the most urgent first, with preemption of the less urgent where there is no room."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.interfaces.scheduling import RequestView, SchedulingContext, SchedulingPolicy

__all__ = ["PriorityPolicy"]


class PriorityPolicy(SchedulingPolicy):
    """Lower `priority` is more urgent; within one priority the earlier arrival is."""

    def __init__(self, *, options: None, context: SchedulingContext) -> None:
        """Takes no options."""

    def waiting_key(self, request: RequestView) -> int:
        """The priority; the core breaks ties by arrival."""
        return request.priority

    def order_running(self, running: Sequence[RequestView], now: float) -> list[int]:
        """The most urgent takes from the budget first."""
        return sorted(range(len(running)), key=lambda i: _urgency(running[i]))

    def pick_victim(self, running: Sequence[RequestView]) -> int:
        """The least urgent; of those, the latest to arrive."""
        return max(range(len(running)), key=lambda i: _urgency(running[i]))

    def should_displace(self, waiting: RequestView, victim: RequestView) -> bool:
        """Only for a strictly more urgent request: equals never preempt each other."""
        return waiting.priority < victim.priority


def _urgency(request: RequestView) -> tuple[int, int]:
    return request.priority, request.arrival_index
