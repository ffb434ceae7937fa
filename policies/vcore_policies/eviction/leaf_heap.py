"""`LeafHeap`: unused blocks by keys, each only after all that follow it in their chains."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from vcore.interfaces.eviction import BlockView
from vcore_policies.eviction.unused_heap import UnusedHeap

__all__ = ["LeafHeap"]


class LeafHeap:
    """Unused blocks, of those that no cached block follows the smallest key first; O(log n) an event, amortised."""

    __slots__ = ("_keys", "_leaves", "_view")

    def __init__(self, view: BlockView) -> None:
        self._view = view
        self._keys: dict[int, float] = {}
        self._leaves = UnusedHeap()  # and blocks that were leaves when they were added

    def __contains__(self, block_id: int) -> bool:
        return block_id in self._keys

    def key(self, block_id: int) -> float:
        """Of an unused block."""
        return self._keys[block_id]

    def add(self, block_id: int, key: float) -> None:
        """Take an unused block in."""
        self._keys[block_id] = key
        if not self._view.num_children(block_id):
            self._leaves.add(block_id, key)

    def discard(self, block_ids: Sequence[int]) -> None:
        """Leave blocks out that are in use again."""
        for block_id in block_ids:
            if self._keys.pop(block_id, None) is not None:
                self._leaves.discard(block_id)

    def evict(self, block_ids: Sequence[int]) -> None:
        """Leave out blocks that are no longer cached; what they followed may be a leaf now."""
        self.discard(block_ids)
        for block_id in block_ids:
            parent = self._view.parent(block_id)
            if parent in self._keys and parent not in self._leaves and not self._view.num_children(parent):
                self._leaves.add(parent, self._keys[parent])

    def pick(self, count: int) -> list[int]:
        """The first `count` to go, if each goes before the next one is chosen. Takes none out."""
        view, keys = self._view, self._keys
        leaves = self._smallest_leaves(count)
        exposed: list[tuple[float, int]] = []
        left: dict[int, int] = {}  # children that a parent would still have
        victims: list[int] = []
        taken = 0
        while len(victims) < count and (taken < len(leaves) or exposed):
            if exposed and (taken == len(leaves) or exposed[0][0] < keys[leaves[taken]]):
                block_id = heapq.heappop(exposed)[1]
            else:
                block_id = leaves[taken]
                taken += 1
            victims.append(block_id)
            parent = view.parent(block_id)
            if parent is not None:
                left[parent] = left.get(parent, view.num_children(parent)) - 1
                if not left[parent] and parent in keys:
                    heapq.heappush(exposed, (keys[parent], parent))
        if len(victims) < count:  # the rest is followed by blocks in use: the twin of a block can be
            chosen = set(victims)
            rest = sorted((key, block_id) for block_id, key in keys.items() if block_id not in chosen)
            victims += [block_id for _, block_id in rest[: count - len(victims)]]
        return victims

    def _smallest_leaves(self, count: int) -> list[int]:
        while True:
            found = self._leaves.smallest(count)
            grown = [block_id for block_id in found if self._view.num_children(block_id)]
            if not grown:
                return found
            for block_id in grown:
                self._leaves.discard(block_id)
