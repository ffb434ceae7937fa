"""`PriorityEviction`: blocks of the least urgent requests go first."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore_policies.eviction.unused_heap import UnusedHeap

__all__ = ["PriorityEviction"]


class PriorityEviction(EvictionPolicy):
    """Blocks by the priority of the request that used them last, then by how long they are unused; O(log n) an event.

    The tail of a chain goes before its head. What is urgent stays however long nobody asks for it, so this order is
    for priorities that mean how valuable a prefix is.
    """

    def __init__(self, *, options: None, context: EvictionContext) -> None:
        """Takes no options."""
        self._view = context.view
        self._unused = UnusedHeap()

    def on_insert(self, block_ids: Sequence[int]) -> None:
        """Nothing: they are in use."""

    def on_hit(self, block_ids: Sequence[int]) -> None:
        """They are in use, and no candidates."""
        for block_id in block_ids:
            self._unused.discard(block_id)

    def on_free(self, block_ids: Sequence[int]) -> None:
        """They are candidates. A larger number is less urgent."""
        for block_id in block_ids:
            self._unused.add(block_id, -self._view.priority(block_id))

    def on_evict(self, block_ids: Sequence[int]) -> None:
        """Forget them."""
        for block_id in block_ids:
            self._unused.discard(block_id)

    def pick_victims(self, count: int) -> list[int]:
        """The least urgent, of those the longest unused."""
        return self._unused.smallest(count)
