"""`FIFOEviction`: the block that was cached first goes first, however often it was used since."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore_policies.eviction.unused_heap import UnusedHeap

__all__ = ["FIFOEviction"]


class FIFOEviction(EvictionPolicy):
    """Blocks in the order in which their content was cached; O(log n) an event, amortised.

    Of blocks that were cached in one batch the later goes first: it may be the continuation of the
    earlier, which is of use without it.
    """

    def __init__(self, *, options: None, context: EvictionContext) -> None:
        """Takes no options."""
        self._num_inserted = 0
        self._ages: dict[int, int] = {}  # rising from batch to batch, and falling in each
        self._unused = UnusedHeap()

    def on_insert(self, block_ids: Sequence[int]) -> None:
        """They are the youngest now."""
        self._num_inserted += len(block_ids)
        for place, block_id in enumerate(block_ids):
            self._ages[block_id] = self._num_inserted - place

    def on_hit(self, block_ids: Sequence[int]) -> None:
        """They are in use, and no candidates; their age stays."""
        for block_id in block_ids:
            self._unused.discard(block_id)

    def on_free(self, block_ids: Sequence[int]) -> None:
        """They are candidates, each at its age."""
        for block_id in block_ids:
            self._unused.add(block_id, self._ages[block_id])

    def on_evict(self, block_ids: Sequence[int]) -> None:
        """Forget them."""
        for block_id in block_ids:
            self._unused.discard(block_id)
            del self._ages[block_id]

    def pick_victims(self, count: int) -> list[int]:
        """The `count` oldest that nobody uses."""
        return self._unused.smallest(count)
