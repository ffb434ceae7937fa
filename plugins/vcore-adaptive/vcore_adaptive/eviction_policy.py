"""`ARCEviction`: recency and frequency, and a share of the cache for each that follows the traffic."""

from collections import OrderedDict
from collections.abc import Sequence

from vcore.interfaces import EvictionContext, EvictionPolicy

from vcore_adaptive.options import ARCOptions


class ARCEviction(EvictionPolicy):
    """ARC (Megiddo and Modha, "ARC: A Self-Tuning, Low Overhead Replacement Cache", FAST 2003,
    figure 4), over the blocks that nobody uses; O(1) an event.

    Two LRU lists: what was used once (T1 of the paper) and what was used again (T2). What either
    gave up is remembered (B1, B2); when such content is computed again, the list that it was in
    was too short, and its share grows at the cost of the other's.
    """

    def __init__(self, *, options: ARCOptions, context: EvictionContext) -> None:
        self._view = context.view
        self._num_blocks = context.num_blocks
        self._most_ghosts = int(options.ghosts * context.num_blocks)
        self._once: OrderedDict[int, None] = OrderedDict()
        self._again: OrderedDict[int, None] = OrderedDict()
        self._once_ghosts: OrderedDict[bytes, None] = OrderedDict()
        self._again_ghosts: OrderedDict[bytes, None] = OrderedDict()
        self._target = 0.0  # blocks that `_once` may have before it gives up one (p of the paper)
        self._reused: set[int] = set()  # cached blocks whose content was used more than once

    def on_insert(self, block_ids: Sequence[int]) -> None:
        """Content that was given up too soon moves the target, and counts as used again."""
        once, again = self._once_ghosts, self._again_ghosts
        for block_id in block_ids:
            content = self._view.content(block_id)
            if content in once:
                self._target += max(1.0, len(again) / len(once))
                del once[content]
            elif content in again:
                self._target -= max(1.0, len(once) / len(again))
                del again[content]
            else:
                continue
            self._reused.add(block_id)
        self._target = min(max(self._target, 0.0), float(self._num_blocks))

    def on_hit(self, block_ids: Sequence[int]) -> None:
        """They are in use, and used again."""
        self._reused.update(block_ids)
        for block_id in block_ids:
            self._once.pop(block_id, None)
            self._again.pop(block_id, None)

    def on_free(self, block_ids: Sequence[int]) -> None:
        """They are the youngest of their list."""
        for block_id in block_ids:
            (self._again if block_id in self._reused else self._once)[block_id] = None

    def on_evict(self, block_ids: Sequence[int]) -> None:
        """Forget the blocks, and remember what they held."""
        for block_id in block_ids:
            if block_id in self._once:
                del self._once[block_id]
                self._once_ghosts[self._view.content(block_id)] = None
            elif block_id in self._again:
                del self._again[block_id]
                self._again_ghosts[self._view.content(block_id)] = None
            self._reused.discard(block_id)
        for ghosts in (self._once_ghosts, self._again_ghosts):
            while len(ghosts) > self._most_ghosts:
                ghosts.popitem(last=False)

    def pick_victims(self, count: int) -> list[int]:
        """The oldest of the list that has more than its share, one after another."""
        once, again = iter(self._once), iter(self._again)
        num_once, num_again = len(self._once), len(self._again)
        victims: list[int] = []
        while len(victims) < count:
            if num_once > self._target or not num_again:
                victims.append(next(once))
                num_once -= 1
            else:
                victims.append(next(again))
                num_again -= 1
        return victims
