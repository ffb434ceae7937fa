"""`OrderChoice`: whether to evict by what was learned, or by plain counts of uses, whichever would have hit more."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from zlib import crc32

from vcore_policies.eviction.shadow_cache import LastUse, ShadowCache

__all__ = ["OrderChoice"]

_SAMPLED = 1024  # contents in a shadow cache, about
_HALF_LIFE = 16.0  # turnovers of the cache after which a hit counts half
_LEAD = 0.5  # standard deviations by which uses must lead


class OrderChoice:
    """Two small caches that shadow the real one, each true to one order; the order of the one that hits more is taken.

    Where popularity never changes, no rate that is learned by kind beats counting the uses of each content, and nobody
    can tell in advance. The shadow caches hold a sample of the contents, chosen by their hashes, in as many times less
    room; that tells how the orders compare (Waldspurger, Saemundsson, Ahmad and Park, "Cache modeling and optimization
    using miniature simulations", USENIX ATC 2017, section 3). As in set dueling, the winner decides for all (Qureshi,
    Jaleel, Patt, Steely and Emer, "Adaptive insertion policies for high performance caching", ISCA 2007, section 5).

    A request's hits by uses less its hits by worth are summed, and so are their squares, old ones fading. Uses must
    lead by a part of the standard deviation of the sum to be taken; worth is taken again as soon as it leads.
    """

    __slots__ = ("_by_uses", "_by_worth", "_lead", "_one_in", "_variance", "goes_by_uses")

    def __init__(self, num_blocks: int, worth: Callable[[LastUse], float]) -> None:
        """For a cache of `num_blocks` blocks, and what a content is worth by its last use."""
        self._one_in = max(num_blocks // _SAMPLED, 1)
        self._by_worth = ShadowCache(worth)
        self._by_uses = ShadowCache(lambda use: use.uses)
        self._lead = 0.0
        self._variance = 0.0
        self.goes_by_uses = False
        """What it says."""

    def samples(self, content: bytes) -> bool:
        """Whether a content is in the sample."""
        return self._one_in == 1 or not crc32(content) % self._one_in

    def use(self, chain: Sequence[tuple[bytes, LastUse]]) -> None:
        """A request used these sampled contents, the head of their chain first, and left."""
        lead = self._by_uses.use(chain) - self._by_worth.use(chain)
        self._lead += lead
        self._variance += lead * lead
        if self.goes_by_uses:
            self.goes_by_uses = self._lead > 0.0
        else:
            self.goes_by_uses = self._lead > _LEAD * math.sqrt(self._variance)

    def shrink(self, num_unused: int, num_evicted: int) -> None:
        """So many blocks were evicted; so many are left that are cached and that nobody uses."""
        size = num_unused // self._one_in
        self._by_worth.shrink(size)
        self._by_uses.shrink(size)
        fade = 0.5 ** (num_evicted / (max(num_unused, 1) * _HALF_LIFE))
        self._lead *= fade
        self._variance *= fade

    def rank(self) -> None:
        """Worths have changed."""
        self._by_worth.rank()
