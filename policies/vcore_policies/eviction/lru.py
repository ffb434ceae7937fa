"""`LRUEviction`: the block that nobody has used for longest goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy

__all__ = ["LRUEviction"]


class LRUEviction(EvictionPolicy):
    """Unused blocks in the order in which their last user left; O(1) an event.

    The tail of a chain is freed before its head, so a chain shrinks from its end and what is left of it
    can still be hit.
    """

    def __init__(self, *, options: None, context: EvictionContext) -> None:
        """Takes no options."""
        # An OrderedDict finds its first keys in O(1), which a dict with many deletions does not.
        self._unused: OrderedDict[int, None] = OrderedDict()

    def on_insert(self, block_ids: Sequence[int]) -> None:
        """Nothing: they are in use."""

    def on_hit(self, block_ids: Sequence[int]) -> None:
        """They are in use, and no candidates."""
        for block_id in block_ids:
            self._unused.pop(block_id, None)

    def on_free(self, block_ids: Sequence[int]) -> None:
        """They are the most recently used now."""
        for block_id in block_ids:
            self._unused[block_id] = None

    def on_evict(self, block_ids: Sequence[int]) -> None:
        """Forget them."""
        for block_id in block_ids:
            self._unused.pop(block_id, None)

    def pick_victims(self, count: int) -> list[int]:
        """The first `count` that were freed."""
        return list(islice(self._unused, count))
