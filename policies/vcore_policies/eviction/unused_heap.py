"""`UnusedHeap`: blocks that nobody uses, the smallest key first; what several policies are made of."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

__all__ = ["UnusedHeap"]

_Entry = tuple[Any, int, int]  # key, running number, block


class UnusedHeap:
    """Unused blocks by keys that stay as they are; O(log n) an event, amortised. Equal keys: first in, first out."""

    __slots__ = ("_front", "_heap", "_number", "_numbers")

    def __init__(self) -> None:
        self._number = 0
        self._numbers: dict[int, int] = {}  # of each block's valid entry
        self._heap: list[_Entry] = []  # valid entries, and those of blocks that left, until they surface
        self._front: list[_Entry] = []  # what was picked last, in order: smaller than all in the heap

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, block_id: int) -> bool:
        return block_id in self._numbers

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def add(self, block_id: int, key: Any) -> None:
        """Take a block in, or give it another key."""
        self._number += 1
        self._numbers[block_id] = self._number
        entry = (key, self._number, block_id)
        if self._front and entry < self._front[-1]:
            self._put_back()
        heapq.heappush(self._heap, entry)

    def discard(self, block_id: int) -> None:
        """Leave a block out, if it is there."""
        self._numbers.pop(block_id, None)
        if len(self._heap) + len(self._front) > 2 * len(self._numbers) + 64:
            self._put_back()
            self._heap = [entry for entry in self._heap if self._numbers.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)

    def smallest(self, count: int) -> list[int]:
        """The `count` blocks with the smallest keys, or all if there are fewer. Takes none out."""
        numbers, heap = self._numbers, self._heap
        front = [entry for entry in self._front if numbers.get(entry[2]) == entry[1]]
        while len(front) < count and heap:
            entry = heapq.heappop(heap)
            if numbers.get(entry[2]) == entry[1]:
                front.append(entry)
        self._front = front
        return [entry[2] for entry in front[:count]]

    def _put_back(self) -> None:
        for entry in self._front:
            heapq.heappush(self._heap, entry)
        self._front = []
