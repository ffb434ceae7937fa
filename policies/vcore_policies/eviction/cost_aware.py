"""`CostAwareEviction`: what is cheap to compute again goes first, and what is old."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore_policies.eviction.leaf_heap import LeafHeap
from vcore_policies.eviction.options import CostAwareOptions

__all__ = ["CostAwareEviction"]


class CostAwareEviction(EvictionPolicy):
    """GreedyDual (Young, "The k-server dual and loose competitiveness for paging", Algorithmica 11, 1994; as in Cao and
    Irani, "Cost-aware WWW proxy caching algorithms", USITS 1997, section 4), from the leaves; O(log n) an event,
    amortised.

    A block that becomes unused is worth what computing it again would cost, on top of the worth of what was evicted
    last; the least worth goes first. A token's cost is that of the layers' products, and of attention to all tokens
    before it, so a block deep in a long prompt costs more than the first block of a short one. No block goes before
    those that follow it.
    """

    def __init__(self, *, options: CostAwareOptions | None, context: EvictionContext) -> None:
        """Without options, the defaults of `CostAwareOptions`."""
        self._view = context.view
        self._cost_per_block = context.block_size / (options or CostAwareOptions()).balance
        self._level = 0.0  # the worth of what was evicted last
        self._unused = LeafHeap(context.view)

    def on_insert(self, block_ids: Sequence[int]) -> None:
        """Nothing: they are in use."""

    def on_hit(self, block_ids: Sequence[int]) -> None:
        """They are in use, and no candidates."""
        self._unused.discard(block_ids)

    def on_free(self, block_ids: Sequence[int]) -> None:
        """They are candidates, worth their cost from now."""
        for block_id in block_ids:
            self._unused.add(block_id, self._level + 1.0 + self._view.depth(block_id) * self._cost_per_block)

    def on_evict(self, block_ids: Sequence[int]) -> None:
        """Forget them. What stays is worth less in comparison to what comes."""
        for block_id in block_ids:
            if block_id in self._unused:
                self._level = max(self._level, self._unused.key(block_id))
        self._unused.evict(block_ids)

    def pick_victims(self, count: int) -> list[int]:
        """The leaves that are worth least, one after another."""
        return self._unused.pick(count)
