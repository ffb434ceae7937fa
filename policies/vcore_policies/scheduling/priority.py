"""`PriorityPolicy`: the most urgent first, with preemption of the less urgent where there is no room."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.interfaces.scheduling import RequestView, SchedulingContext, SchedulingPolicy
from vcore_policies.scheduling.options import PriorityOptions

__all__ = ["PriorityPolicy"]


class PriorityPolicy(SchedulingPolicy):
    """Lower `priority` is more urgent, and waiting makes urgent.

    With ageing a request of priority p that arrived at time a has the urgency

        p + a / ageing_s

    As all requests age at the same pace, their order never changes, so a static key does (Jackson, "Some Problems in
    Queueing with Dynamic Priorities", 1960). Within one priority the earlier arrival is served first.

    Starvation bound: a request of priority p is only passed by those of a better priority q that arrive within
    ``(p - q) * ageing_s`` seconds after it, so by none that arrives ``2 * max_level * ageing_s`` seconds later. None
    without ageing.

    A running request makes room only for one of a strictly better priority, so equals never preempt each other.
    """

    def __init__(self, *, options: PriorityOptions | None, context: SchedulingContext) -> None:
        """See `PriorityOptions`."""
        options = options or PriorityOptions()
        self._per_second = 0.0 if options.ageing_s is None else 1.0 / options.ageing_s
        self._max_level = options.max_level
        self.max_overtaking_s = None if options.ageing_s is None else 2 * options.max_level * options.ageing_s

    def waiting_key(self, request: RequestView) -> float:
        """The urgency; the core breaks ties by arrival."""
        level = request.priority
        if not -self._max_level <= level <= self._max_level:
            level = self._level(request)
        return level + request.arrival_time * self._per_second

    def order_running(self, running: Sequence[RequestView], now: float) -> list[int]:
        """The most urgent takes from the budget first."""
        urgency = [self.waiting_key(request) for request in running]
        return sorted(range(len(running)), key=lambda i: (urgency[i], running[i].arrival_index))

    def pick_victim(self, running: Sequence[RequestView]) -> int:
        """The least urgent; of those, the latest to arrive."""
        urgency = [self.waiting_key(request) for request in running]
        least = max(urgency)
        equals = (index for index, value in enumerate(urgency) if value == least)
        return max(equals, key=lambda i: running[i].arrival_index)

    def should_displace(self, waiting: RequestView, victim: RequestView) -> bool:
        """Only for one of a better priority, unless the victim's age makes up for that."""
        return self._level(waiting) < self._level(victim) and self.waiting_key(waiting) < self.waiting_key(victim)

    def _level(self, request: RequestView) -> int:
        return max(-self._max_level, min(self._max_level, request.priority))
