"""`FIFOEviction`: the block that was cached first goes first, however often it was used since."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy

__all__ = ["FIFOEviction"]

_Age = tuple[int, int]  # the batch in which a block was cached, and its place in it from the end


class FIFOEviction(EvictionPolicy):
    """Blocks in the order in which their content was cached; O(log n) an event, amortised.

    Of blocks that were cached in one batch the later goes first: it may be the continuation of the
    earlier, which is of use without it.
    """

    def __init__(self, *, options: None, context: EvictionContext) -> None:
        """Takes no options."""
        self._num_batches = 0
        self._ages: dict[int, _Age] = {}
        self._unused: set[int] = set()
        # Holds every unused block, and entries of others that have not surfaced yet.
        self._heap: list[tuple[_Age, int]] = []
        self._in_heap: set[tuple[_Age, int]] = set()

    def on_insert(self, block_ids: Sequence[int]) -> None:
        """They are the youngest now."""
        self._num_batches += 1
        for place, block_id in enumerate(block_ids):
            self._ages[block_id] = (self._num_batches, -place)

    def on_hit(self, block_ids: Sequence[int]) -> None:
        """They are in use, and no candidates; their age stays."""
        self._unused.difference_update(block_ids)

    def on_free(self, block_ids: Sequence[int]) -> None:
        """They are candidates, each at its age."""
        self._unused.update(block_ids)
        for block_id in block_ids:
            entry = (self._ages[block_id], block_id)
            if entry not in self._in_heap:
                self._in_heap.add(entry)
                heapq.heappush(self._heap, entry)

    def on_evict(self, block_ids: Sequence[int]) -> None:
        """Forget them."""
        self._unused.difference_update(block_ids)
        for block_id in block_ids:
            self._ages.pop(block_id, None)
        if len(self._heap) > 2 * len(self._unused) + 64:
            self._heap = sorted((self._ages[block_id], block_id) for block_id in self._unused)
            self._in_heap = set(self._heap)

    def pick_victims(self, count: int) -> list[int]:
        """The `count` oldest that nobody uses."""
        victims: list[tuple[_Age, int]] = []
        while len(victims) < count and self._heap:
            entry = heapq.heappop(self._heap)
            age, block_id = entry
            if block_id in self._unused and self._ages[block_id] == age:
                victims.append(entry)
            else:
                self._in_heap.discard(entry)
        # They stay candidates until `on_evict` says that they are gone.
        for entry in victims:
            heapq.heappush(self._heap, entry)
        return [block_id for _, block_id in victims]
