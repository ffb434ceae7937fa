"""`LFUEviction`: the block whose content was used least often goes first."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore_policies.eviction.memory import ContentMemory
from vcore_policies.eviction.options import LFUOptions
from vcore_policies.eviction.unused_heap import UnusedHeap

__all__ = ["LFUEviction"]


class LFUEviction(EvictionPolicy):
    """Blocks by how often their content was used, before they were last evicted, too; O(log n) an event, amortised.

    Of equal ones the longest unused goes first, the tail of a chain before its head. With a half-life, each use weighs
    ``2 ** (-age / half_life)``, ages in requests; the logarithm of that sum, taken at one time for all, is a key that
    needs no update while a block rests (forward decay: Cormode, Shkapenyuk, Srivastava and Xu, "Forward decay: a
    practical time decay model for streaming systems", ICDE 2009, section III).
    """

    def __init__(self, *, options: LFUOptions | None, context: EvictionContext) -> None:
        """Without options, the defaults of `LFUOptions`."""
        options = options or LFUOptions()
        self._view = context.view
        self._half_life = options.half_life
        self._now = 0  # requests so far
        # Of each content: how often it was used; with a half-life, log2 of the sum of 2 ** (time / half_life).
        self._memory: ContentMemory[float] = ContentMemory(options.remembered)
        self._counts: dict[int, float] = {}
        self._unused = UnusedHeap()

    def on_insert(self, block_ids: Sequence[int]) -> None:
        """Counts go on where they were when the content was last cached."""
        for block_id in block_ids:
            self._count(block_id, self._memory.get(self._view.content(block_id), -math.inf))

    def on_hit(self, block_ids: Sequence[int]) -> None:
        """One use more each; they are no candidates."""
        for block_id in block_ids:
            self._unused.discard(block_id)
            self._count(block_id, self._counts[block_id])

    def on_free(self, block_ids: Sequence[int]) -> None:
        """They are candidates, by their counts."""
        self._now += 1
        for block_id in block_ids:
            self._unused.add(block_id, self._counts[block_id])

    def on_evict(self, block_ids: Sequence[int]) -> None:
        """Their counts are kept with their contents."""
        for block_id in block_ids:
            self._unused.discard(block_id)
            self._memory.put(self._view.content(block_id), self._counts.pop(block_id))

    def pick_victims(self, count: int) -> list[int]:
        """The `count` that were used least."""
        return self._unused.smallest(count)

    def _count(self, block_id: int, before: float) -> None:
        if self._half_life is None:
            self._counts[block_id] = max(before, 0.0) + 1.0
            return
        weight = self._now / self._half_life
        high, low = max(before, weight), min(before, weight)
        self._counts[block_id] = high + math.log2(1.0 + 2.0 ** (low - high))
