"""`RequestHeap`: requests by a key, where any may leave at any time, and a walk may pass some over."""

from __future__ import annotations

import heapq
from collections.abc import Generator
from typing import Any

from vcore.interfaces.scheduling import RequestView

__all__ = ["RequestHeap"]

_Entry = tuple[Any, int, RequestView]  # key, arrival; arrivals differ, so views are never compared


class RequestHeap:
    """A heap by key, then arrival; O(log n) an event, amortised.

    Who left stays on the heap until it comes to the front or is swept.
    """

    __slots__ = ("_entries", "_heap")

    def __init__(self) -> None:
        """An empty heap."""
        self._heap: list[_Entry] = []
        self._entries: dict[int, _Entry] = {}
        """By arrival, the entry that counts."""

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, request: RequestView) -> bool:
        return request.arrival_index in self._entries

    def push(self, key: Any, request: RequestView) -> None:
        """`request`, which is not there, comes in at `key`: any type that compares with itself."""
        arrival = request.arrival_index
        entry = (key, arrival, request)
        self._entries[arrival] = entry
        heapq.heappush(self._heap, entry)

    def discard(self, request: RequestView) -> bool:
        """Whether the request was there; now it is not."""
        if self._entries.pop(request.arrival_index, None) is None:
            return False
        if len(self._heap) > 2 * len(self._entries) + 64:
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)
        return True

    def first(self) -> RequestView | None:
        """The one with the least key."""
        while self._heap:
            if self._is_current(self._heap[0]):
                return self._heap[0][2]
            heapq.heappop(self._heap)
        return None

    def walk(self) -> Generator[RequestView]:
        """All, the least key first; those who are still there when it ends, or is closed, keep their places."""
        met: list[_Entry] = []
        try:
            while self._heap:
                entry = heapq.heappop(self._heap)
                if self._is_current(entry):
                    met.append(entry)
                    yield entry[2]
        finally:
            for entry in met:
                if self._is_current(entry):
                    heapq.heappush(self._heap, entry)

    def _is_current(self, entry: _Entry) -> bool:
        return self._entries.get(entry[1]) is entry
