"""`TTLPinnedEviction`: least recently used, where a request may ask that its prefix be kept for a time."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore_policies.eviction.options import TTLPinnedOptions
from vcore_policies.eviction.unused_heap import UnusedHeap

__all__ = ["TTLPinnedEviction"]


class TTLPinnedEviction(EvictionPolicy):
    """LRU by the time until which a block counts as used: when it was freed, plus the time to live that a request asked
    for (`SamplingParams.cache_ttl`); O(log n) an event.

    So what is pinned goes only after all that is not, then what would expire first; and what expired is as old as
    what was last used then. Requests can pin a share of all blocks; a block beyond it is not pinned.
    """

    def __init__(self, *, options: TTLPinnedOptions | None, context: EvictionContext) -> None:
        """Without options, the defaults of `TTLPinnedOptions`."""
        self._view = context.view
        self._clock = context.clock
        self._most_pinned = int((options or TTLPinnedOptions()).most_pinned * context.num_blocks)
        self._pinned: dict[int, float] = {}  # unused blocks, and until when
        self._ends: list[tuple[float, int]] = []  # of those, and of some that are pinned no more
        self._unused = UnusedHeap()

    def on_insert(self, block_ids: Sequence[int]) -> None:
        """Nothing: they are in use."""

    def on_hit(self, block_ids: Sequence[int]) -> None:
        """They are in use, and no candidates."""
        self._leave(block_ids)

    def on_free(self, block_ids: Sequence[int]) -> None:
        """They are candidates; those with a time to live from when it is over."""
        now = self._clock()
        self._expire(now)
        # The head of a chain first: if not all can be pinned, its beginning is of use without the rest.
        untils = [self._pin(block_id, now) for block_id in reversed(block_ids)]
        for block_id, until in zip(block_ids, reversed(untils), strict=True):
            self._unused.add(block_id, until)

    def on_evict(self, block_ids: Sequence[int]) -> None:
        """Forget them."""
        self._leave(block_ids)

    def pick_victims(self, count: int) -> list[int]:
        """Those that count as unused for longest."""
        return self._unused.smallest(count)

    def _pin(self, block_id: int, now: float) -> float:
        """Until when it counts as used."""
        ttl = self._view.ttl(block_id)
        if ttl is None or len(self._pinned) >= self._most_pinned:
            return now
        self._pinned[block_id] = now + ttl
        heapq.heappush(self._ends, (now + ttl, block_id))
        return now + ttl

    def _expire(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            until, block_id = heapq.heappop(self._ends)
            if self._pinned.get(block_id) == until:
                del self._pinned[block_id]

    def _leave(self, block_ids: Sequence[int]) -> None:
        for block_id in block_ids:
            self._unused.discard(block_id)
            self._pinned.pop(block_id, None)
        if len(self._ends) > 2 * len(self._pinned) + 64:
            self._ends = sorted((until, block_id) for block_id, until in self._pinned.items())
