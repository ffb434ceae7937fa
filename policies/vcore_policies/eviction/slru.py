"""`SLRUEviction`: least recently used in two segments, so that what is used once does not drive out what is not."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import chain, islice

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore_policies.eviction.options import SLRUOptions

__all__ = ["SLRUEviction"]


class SLRUEviction(EvictionPolicy):
    """Segmented LRU (Karedla, Love and Wherry, "Caching strategies to improve disk system performance", IEEE Computer
    27(3), 1994); O(1) an event.

    A block is on probation until it is hit; then it is protected. The protected segment has a share of the unused
    blocks that the last eviction left; what falls out of it is on probation again, as its youngest. Victims come from
    probation first. In both segments the longest unused goes first, the tail of a chain before its head.
    """

    def __init__(self, *, options: SLRUOptions | None, context: EvictionContext) -> None:
        """Without options, the defaults of `SLRUOptions`."""
        self._share = (options or SLRUOptions()).protected
        self._limit = int(self._share * context.num_blocks)
        self._was_hit: set[int] = set()  # blocks in use or protected that were hit since they were last on probation
        self._probation: OrderedDict[int, None] = OrderedDict()
        self._protected: OrderedDict[int, None] = OrderedDict()

    def on_insert(self, block_ids: Sequence[int]) -> None:
        """Nothing: they are in use."""

    def on_hit(self, block_ids: Sequence[int]) -> None:
        """They are in use, and protected afterwards."""
        self._was_hit.update(block_ids)
        for block_id in block_ids:
            self._probation.pop(block_id, None)
            self._protected.pop(block_id, None)

    def on_free(self, block_ids: Sequence[int]) -> None:
        """They are the youngest of their segment."""
        for block_id in block_ids:
            segment = self._protected if block_id in self._was_hit else self._probation
            segment[block_id] = None
        self._demote()

    def on_evict(self, block_ids: Sequence[int]) -> None:
        """Forget them."""
        self._was_hit.difference_update(block_ids)
        for block_id in block_ids:
            self._probation.pop(block_id, None)
            self._protected.pop(block_id, None)
        self._limit = int(self._share * (len(self._probation) + len(self._protected)))
        self._demote()

    def pick_victims(self, count: int) -> list[int]:
        """The `count` longest unused, those on probation first."""
        return list(islice(chain(self._probation, self._protected), count))

    def _demote(self) -> None:
        while len(self._protected) > self._limit:
            block_id, _ = self._protected.popitem(last=False)
            self._was_hit.discard(block_id)
            self._probation[block_id] = None
