"""`WalkedOrder`: the order of a policy that keeps the waiting requests itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vcore.interfaces.scheduling import RequestView
from vcore.scheduler.checked_policy import CheckedPolicy
from vcore.scheduler.request import Request, request_of
from vcore.scheduler.waiting_order import WaitingOrder

__all__ = ["WalkedOrder"]


class WalkedOrder(WaitingOrder):
    """Tells a `vcore.interfaces.QueueingPolicy` who waits, and checks each step of its walk."""

    def __init__(self, members: Mapping[int, Request], policy: CheckedPolicy) -> None:
        """The order of `policy`."""
        super().__init__(members)
        self._policy = policy
        self._walk: Iterator[RequestView] | None = None
        self._now = 0.0
        self._named: set[int] = set()
        """Arrivals of those whom this walk named."""

    def push(self, request: Request) -> None:
        """The policy is told."""
        self._policy.on_waiting(request.view)

    def discard(self, request: Request) -> None:
        """The policy is told."""
        self._policy.on_left(request.view)

    def open(self, now: float) -> None:
        """The policy begins when it is asked for the first."""
        self._now = now

    def advance(self) -> Request | None:
        """The next that the policy names; None at the end, or if it answers nonsense."""
        if self._walk is None:
            self._walk = self._policy.walk(self._now)
        view = self._policy.next_of_walk(self._walk)
        if view is None:
            left_out = next((r for arrival, r in self._members.items() if arrival not in self._named), None)
            if left_out is not None:
                self._policy.walk_is_wrong("one that names all who wait", f"one without {left_out.view!r}")
            return None
        request = request_of(view)
        if request is None or self._members.get(request.arrival_index) is not request:
            self._policy.walk_is_wrong("requests that wait", view)
            return None
        if request.arrival_index in self._named:
            self._policy.walk_is_wrong("each request once", view)
            return None
        self._named.add(request.arrival_index)
        return request

    def close(self) -> None:
        """The policy keeps the places."""
        walk, self._walk = self._walk, None
        self._named.clear()
        if walk is not None:
            self._policy.close_walk(walk)
