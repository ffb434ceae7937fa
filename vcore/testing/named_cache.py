"""`NamedCache`: the real block pool with blocks named by letters, for tests of the order in which a policy gives up."""

from __future__ import annotations

from collections.abc import Callable

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.kv_cache import BlockPool

__all__ = ["NamedCache"]


class NamedCache:
    """Chains of blocks as words: ``insert("abc")`` caches block a, b behind it, and c behind that.

        cache = NamedCache(lambda context: ARCEviction(options=ARCOptions(), context=context))
        cache.insert("abc")
        cache.free("abc")
        assert cache.order() == "cba"

    Any wrong answer of the policy raises `vcore.errors.PolicyError`.
    """

    def __init__(self, make: Callable[[EvictionContext], EvictionPolicy], num_blocks: int = 6) -> None:
        """An empty cache.

        Args:
            make: makes the policy.
            num_blocks: how many blocks it has.
        """
        made: list[EvictionPolicy] = []

        def keep(context: EvictionContext) -> EvictionPolicy:
            made.append(make(context))
            return made[0]

        self.pool = BlockPool(num_blocks + 1, 4, keep, eviction_name="under test", strict=True)
        self.policy = made[0]

    def insert(self, names: str) -> None:
        """A chain is computed in one step, and is in use. What there is no room for is evicted."""
        blocks = self.pool.allocate(len(names))
        assert blocks is not None, f"there is no room for {names!r}"
        for depth, (block_id, name) in enumerate(zip(blocks, names, strict=True)):
            parent = names[depth - 1].encode() if depth else None
            assert self.pool.cache(block_id, name.encode(), parent, depth, 0), f"{name!r} is cached already"
        self.pool.flush_inserts()

    def hit(self, names: str) -> None:
        """A request reuses the chain, and is using it now."""
        self.pool.acquire(self.blocks(names))

    def free(self, names: str) -> None:
        """One user less for each."""
        self.pool.release(self.blocks(names)[::-1])

    def visit(self, names: str) -> None:
        """A request comes and goes: it hits what is cached of the beginning, and computes the rest."""
        known = next((count for count, name in enumerate(names) if name not in self.cached()), len(names))
        self.hit(names[:known])
        self.insert(names[known:])
        self.free(names)

    def cached(self) -> str:
        """What is cached."""
        return "".join(sorted(name.decode() for name in self.pool.by_hash[0]))

    def blocks(self, names: str) -> list[int]:
        """The ids of cached blocks."""
        return [self.pool.by_hash[0][name.encode()] for name in names]

    def order(self) -> str:
        """The order in which all that nobody uses would go, if they went one after another now."""
        names = {block_id: name.decode() for name, block_id in self.pool.by_hash[0].items()}
        unused = [block_id for block_id in names if not self.pool.ref_counts[block_id]]
        return "".join(names[block_id] for block_id in self.policy.pick_victims(len(unused)))
