"""`WaitingQueue`: requests that wait for a row and blocks, in the order of the scheduling policy."""

from __future__ import annotations

from vcore.scheduler.checked_policy import CheckedPolicy
from vcore.scheduler.request import Request
from vcore.scheduler.waiting_order import ArrivalOrder, KeyOrder, WaitingOrder
from vcore.scheduler.walked_order import WalkedOrder

__all__ = ["WaitingQueue"]


class WaitingQueue:
    """Who waits, in the policy's order, with a turn for who arrived first (`SchedulingPolicy.patience`).

    A walk through the front is `open`, then `peek`, `pop` and `skip` as often as one likes, then `close`.
    Once the policy has lost its standing, all who wait are met by arrival.
    """

    def __init__(self, policy: CheckedPolicy) -> None:
        """An empty queue in the order of `policy`, or by arrival once that is not trusted."""
        self._policy = policy
        self._members: dict[int, Request] = {}
        self._order: WaitingOrder = (
            WalkedOrder(self._members, policy) if policy.queues else KeyOrder(self._members, policy)
        )
        self._by_arrival = False
        self._arrivals = ArrivalOrder(self._members) if policy.patience is not None else None
        self._num_passes = 0
        """Admissions in a row that passed over who arrived first."""
        self._head: Request | None = None
        """What `peek` answers."""
        self._skipped: set[int] = set()
        """Arrivals that this walk passed over."""

    def __len__(self) -> int:
        return len(self._members)

    def push(self, request: Request) -> None:
        """Let a request wait."""
        self._members[request.arrival_index] = request
        if self._arrivals is not None:
            self._arrivals.push(request)
        self._trusted_order().push(request)
        self._trusted_order()

    def discard(self, request: Request) -> None:
        """The request waits no more."""
        del self._members[request.arrival_index]
        if self._arrivals is not None:
            self._arrivals.discard(request)
        self._trusted_order().discard(request)

    def open(self, now: float) -> None:
        """Begin a walk.

        Args:
            now: seconds.
        """
        self._trusted_order().open(now)

    def peek(self) -> Request | None:
        """The next request of the walk, or None."""
        if self._head is None:
            self._head = self._first_if_due() or self._next()
        return self._head

    def pop(self) -> None:
        """Take the request that `peek` returned out of the queue."""
        head, self._head = self._head, None
        assert head is not None
        if self._arrivals is not None:
            self._num_passes = 0 if self._arrivals.peek() is head else self._num_passes + 1
        self.discard(head)

    def skip(self) -> None:
        """Pass over the request that `peek` returned, for this walk."""
        assert self._head is not None
        self._skipped.add(self._head.arrival_index)
        self._head = None

    def close(self) -> None:
        """End the walk: all that was not popped waits on."""
        self._head = None
        self._skipped.clear()
        self._trusted_order().close()
        self._trusted_order()

    def _first_if_due(self) -> Request | None:
        """Who arrived first, if it is its turn and it was not passed over in this walk."""
        patience = self._policy.patience
        if self._arrivals is None or patience is None or self._num_passes < patience:
            return None
        first = self._arrivals.peek()
        return None if first is None or first.arrival_index in self._skipped else first

    def _next(self) -> Request | None:
        """The next by the order who was not passed over."""
        while True:
            order = self._trusted_order()
            request = order.advance()
            # A policy that has just lost its standing has not answered.
            if self._trusted_order() is order and (request is None or request.arrival_index not in self._skipped):
                return request

    def _trusted_order(self) -> WaitingOrder:
        """The policy's order; from when it has lost its standing, all who wait by arrival."""
        if not self._by_arrival and not self._policy.trusted:
            self._by_arrival = True
            self._order = ArrivalOrder(self._members)
            for request in self._members.values():
                self._order.push(request)
        return self._order
