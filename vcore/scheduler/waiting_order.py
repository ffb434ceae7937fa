"""`WaitingOrder`: in which order waiting requests are met in a walk, and the order by the keys of a policy.

Who waits is held apart (`WaitingQueue`), so that a policy that answers nonsense can lose nobody.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from typing import Any

from vcore.kv_cache.policy_standing import POLICY_FAULTS
from vcore.scheduler.checked_policy import CheckedPolicy
from vcore.scheduler.request import Request

__all__ = ["ArrivalOrder", "KeyOrder", "WaitingOrder"]

_Entry = tuple[Any, int, Request]  # a sort key, arrival; arrivals differ, so requests are never compared


class WaitingOrder(ABC):
    """An order of those in `members`, who wait now: a dictionary by arrival that others change."""

    def __init__(self, members: Mapping[int, Request]) -> None:
        """An order of `members`, none of whom it has been told of."""
        self._members = members

    @abstractmethod
    def push(self, request: Request) -> None:
        """It waits, and is a member already."""

    @abstractmethod
    def discard(self, request: Request) -> None:
        """It waits no more, and is no member any more."""

    @abstractmethod
    def open(self, now: float) -> None:
        """Begin a walk at its front."""

    @abstractmethod
    def advance(self) -> Request | None:
        """The next member of the walk, each once; None at its end."""

    @abstractmethod
    def close(self) -> None:
        """End the walk; those whom it met and who are members still keep their places."""


class _HeapOrder(WaitingOrder):
    """A heap of entries, some of whose requests may have left."""

    def __init__(self, members: Mapping[int, Request]) -> None:
        super().__init__(members)
        self._heap: list[_Entry] = []
        self._met: list[_Entry] = []
        """Entries that were taken off the heap in this walk."""

    def discard(self, request: Request) -> None:
        """Its entry stays until it comes to the front or is swept."""
        if len(self._heap) > 2 * len(self._members) + 64:
            self._heap = [entry for entry in self._heap if entry[1] in self._members]
            heapq.heapify(self._heap)

    def open(self, now: float) -> None:
        """Nothing to prepare."""

    def advance(self) -> Request | None:
        """The first on the heap."""
        entry = self._take()
        if entry is None:
            return None
        self._met.append(entry)
        return entry[2]

    def close(self) -> None:
        """Put back who waits on."""
        for entry in self._met:
            if entry[1] in self._members:
                heapq.heappush(self._heap, entry)
        self._met.clear()

    def _take(self) -> _Entry | None:
        while self._heap:
            entry = heapq.heappop(self._heap)
            if entry[1] in self._members:
                return entry
        return None


class ArrivalOrder(_HeapOrder):
    """The core's own order."""

    def push(self, request: Request) -> None:
        """By its arrival, which it keeps when it is preempted."""
        heapq.heappush(self._heap, (0, request.arrival_index, request))

    def peek(self) -> Request | None:
        """Who arrived first, outside a walk."""
        while self._heap:
            entry = self._heap[0]
            if entry[1] in self._members:
                return entry[2]
            heapq.heappop(self._heap)
        return None


class KeyOrder(_HeapOrder):
    """By the policy's key, then arrival; for a policy that ranks, a ranked window in front of that.

    Once the policy has lost its standing nothing here is of use any more; any call may be what costs it that.
    """

    def __init__(self, members: Mapping[int, Request], policy: CheckedPolicy) -> None:
        """An order of `members` by the keys of `policy`."""
        super().__init__(members)
        self._policy = policy
        self._window: deque[_Entry] = deque()

    def push(self, request: Request) -> None:
        """Its key is taken now."""
        key = self._policy.waiting_key(request.view)
        try:
            heapq.heappush(self._heap, (key, request.arrival_index, request))
        except POLICY_FAULTS as error:
            self._distrust(error)

    def discard(self, request: Request) -> None:
        """See `_HeapOrder.discard`."""
        try:
            super().discard(request)
        except POLICY_FAULTS as error:
            self._distrust(error)

    def open(self, now: float) -> None:
        """A policy that ranks is asked now."""
        if not self._policy.ranks_waiting:
            return
        size = self._policy.waiting_window()
        while len(self._window) < size and (entry := self._take()) is not None:
            self._window.append(entry)
        order = self._policy.rank_waiting([entry[2].view for entry in self._window], now)
        if order is not None:
            entries = list(self._window)
            self._window = deque(entries[index] for index in order)

    def advance(self) -> Request | None:
        """The next of the window, then of the heap."""
        if not self._window:
            return super().advance()
        entry = self._window.popleft()
        self._met.append(entry)
        return entry[2]

    def close(self) -> None:
        """Put back who waits on."""
        self._met += self._window
        self._window.clear()
        try:
            super().close()
        except POLICY_FAULTS as error:
            self._distrust(error)

    def _take(self) -> _Entry | None:
        try:
            return super()._take()
        except POLICY_FAULTS as error:
            self._distrust(error)
            return None

    def _distrust(self, error: BaseException) -> None:
        self._policy.standing_lost("waiting_key", "keys that compare with each other", error)
