"""`WaitingQueue`: requests that wait for a row and blocks, in the order of the scheduling policy."""

from __future__ import annotations

import heapq
from collections import deque
from typing import Any

from vcore.kv_cache.policy_standing import POLICY_FAULTS
from vcore.scheduler.checked_policy import CheckedPolicy
from vcore.scheduler.request import Request

__all__ = ["WaitingQueue"]

_Entry = tuple[Any, int, Request]  # the policy's key, arrival; arrivals differ, so requests are never compared


class WaitingQueue:
    """A heap by the policy's key, then arrival; for a policy that ranks, a ranked window in front of it.

    A walk through the front is `open`, then `peek`, `pop` and `skip` as often as one likes, then `close`.
    Who waits is held apart from the heap, so that keys that refuse to be compared can lose nobody.
    """

    def __init__(self, policy: CheckedPolicy) -> None:
        """An empty queue in the order of `policy`, or by arrival once that is not trusted."""
        self._policy = policy
        self._members: dict[int, Request] = {}
        self._heap: list[_Entry] = []
        self._window: deque[_Entry] = deque()
        self._skipped: list[_Entry] = []
        self._by_arrival = False

    def __len__(self) -> int:
        return len(self._members)

    def push(self, request: Request) -> None:
        """Let a request wait; its key is taken now."""
        self._members[request.arrival_index] = request
        key = self._policy.waiting_key(request.view)
        if not self._rebuilt():
            self._push((key, request.arrival_index, request))

    def discard(self, request: Request) -> None:
        """The request waits no more. Its entry stays until it comes to the front or is swept."""
        del self._members[request.arrival_index]
        if len(self._heap) > 2 * len(self._members) + 64:
            self._heap = [entry for entry in self._heap if entry[1] in self._members]
            try:
                heapq.heapify(self._heap)
            except POLICY_FAULTS as error:
                self._distrust(error)

    def open(self, now: float) -> None:
        """Begin a walk; a policy that ranks is asked now.

        Args:
            now: seconds.
        """
        self._rebuilt()
        if not self._policy.ranks_waiting:
            return
        size = self._policy.waiting_window()
        while len(self._window) < size and (entry := self._take()) is not None:
            self._window.append(entry)
        order = self._policy.rank_waiting([entry[2].view for entry in self._window], now)
        if order is not None:
            entries = list(self._window)
            self._window = deque(entries[index] for index in order)
        self._rebuilt()

    def peek(self) -> Request | None:
        """The next request of the walk, or None."""
        if not self._window:
            entry = self._take()
            if entry is None:
                return None
            self._window.append(entry)
        return self._window[0][2]

    def pop(self) -> None:
        """Take the request that `peek` returned out of the queue."""
        del self._members[self._window.popleft()[1]]

    def skip(self) -> None:
        """Pass over the request that `peek` returned, for this walk."""
        self._skipped.append(self._window.popleft())

    def close(self) -> None:
        """End the walk: all that was not popped waits on."""
        left = [*self._window, *self._skipped]
        self._window.clear()
        self._skipped.clear()
        if self._rebuilt():
            return
        for entry in left:
            if not self._push(entry):
                return

    def _push(self, entry: _Entry) -> bool:
        """Put an entry on the heap. False if the heap was built anew instead, from all who wait."""
        try:
            heapq.heappush(self._heap, entry)
        except POLICY_FAULTS as error:
            self._distrust(error)
            return False
        return True

    def _take(self) -> _Entry | None:
        """The first entry of the heap whose request still waits, or None."""
        while self._heap:
            try:
                entry = heapq.heappop(self._heap)
            except POLICY_FAULTS as error:
                self._distrust(error)
                continue
            if entry[1] in self._members:
                return entry
        return None

    def _distrust(self, error: BaseException) -> None:
        self._policy.standing_lost("waiting_key", "keys that compare with each other", error)
        self._rebuilt()

    def _rebuilt(self) -> bool:
        """If the policy has just lost its standing, order all who wait by arrival, and say True."""
        if self._by_arrival or self._policy.trusted:
            return False
        self._by_arrival = True
        self._window.clear()
        self._skipped.clear()
        self._heap = [(0, arrival, request) for arrival, request in sorted(self._members.items())]
        return True
