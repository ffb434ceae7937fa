"""`BlockPool`: every block of the KV cache, who uses it, and what content it is known by.

A block is in one of four places:

                 allocate                       cache
      free  ----------------->  in use  ----------------->  in use, cached
        ^  <-----------------           <-----------------     |      ^
        |        release                     uncache           |      | acquire
        |                                              release |      |
        +-------------------------------------------------->   v      |
                        evict, uncache                    unused, cached

Block 0 is the null block: never handed out, never cached. The pool knows neither requests nor tokens. All
groups of layers take their blocks from it; while a block is cached it belongs to one of them.
Everything is O(1) an event, whatever the number of cached blocks; plain lists and dicts, since each
event touches a few scalars.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.kv_cache.checked_eviction import CheckedEviction
from vcore.kv_cache.pool_view import PoolView

__all__ = ["BlockPool"]


class BlockPool:
    """Reference counts, content hashes and eviction of `num_blocks` blocks."""

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        make_eviction: Callable[[EvictionContext], EvictionPolicy],
        *,
        eviction_name: str,
        num_groups: int = 1,
        strict: bool = False,
    ) -> None:
        """A pool with every block free.

        Args:
            num_blocks: blocks in all, the null block among them.
            block_size: tokens a block holds; only passed on to the policy.
            make_eviction: builds the eviction policy.
            eviction_name: what the policy is called in the log.
            num_groups: groups of layers, in each of which a content hash may stand for a block.
            strict: whether a fault of the policy raises `vcore.errors.PolicyError`.
        """
        self.num_blocks = num_blocks
        self.version = 0
        """Changes whenever the set of cached blocks does."""
        self.ref_counts = [0] * num_blocks
        """How many requests use each block. Read only."""
        self.by_hash: tuple[dict[bytes, int], ...] = tuple({} for _ in range(num_groups))
        """By group, the cached block of each content hash. Read only."""
        self._free = list(range(num_blocks - 1, 0, -1))
        # An OrderedDict, because the first key of a dict with many deletions is found in O(n).
        self._unused: OrderedDict[int, None] = OrderedDict()
        self._inserted: list[int] = []
        self._hashes: list[bytes | None] = [None] * num_blocks
        self._parents: list[bytes | None] = [None] * num_blocks
        self._groups = [0] * num_blocks
        self._depths = [0] * num_blocks
        self._priorities = [0] * num_blocks
        self._ends = [False] * num_blocks
        self._ttls: dict[int, float] = {}  # of the cached blocks that a request asked to keep
        # By the parent's hash, not its id: a parent may be evicted and computed again in another block.
        self._num_children: tuple[dict[bytes, int], ...] = tuple({} for _ in range(num_groups))
        view = PoolView(self)
        context = EvictionContext(view=view, num_blocks=num_blocks, block_size=block_size)
        self._policy = CheckedEviction(make_eviction(context), eviction_name, strict=strict)

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` can hand out: free ones, and cached ones that nobody uses."""
        return len(self._free) + len(self._unused)

    @property
    def num_cached(self) -> int:
        """Blocks that can be hit, used or not."""
        return sum(map(len, self.by_hash))

    @property
    def fault(self) -> str | None:
        """What the eviction policy did wrong, or None."""
        return self._policy.standing.fault

    def hash_of(self, block_id: int) -> bytes | None:
        """The content hash that the block is cached by, or None."""
        return self._hashes[block_id]

    def cached_blocks(self) -> list[int]:
        """Every block that can be hit."""
        return [block_id for by_hash in self.by_hash for block_id in by_hash.values()]

    def allocate(self, count: int) -> list[int] | None:
        """Hand out `count` blocks, free ones first; each then has one user.

        Returns:
            Their ids, or None, and nothing changes, if there are not so many.
        """
        free = self._free
        missing = count - len(free)
        if missing > 0:
            if missing > len(self._unused):
                return None
            self._evict(missing)
        if count == 0:
            return []
        taken = free[-count:]
        del free[-count:]
        taken.reverse()
        ref_counts = self.ref_counts
        for block_id in taken:
            ref_counts[block_id] = 1
        return taken

    def acquire(self, block_ids: Sequence[int], priority: int = 0, ttl: float | None = None) -> None:
        """One more user for each of these cached blocks.

        Args:
            block_ids: cached blocks, the head of the chain first.
            priority: the user's, told to the eviction policy.
            ttl: seconds after its last use for which the user wants them kept, told to the eviction policy.
        """
        if not block_ids:
            return
        self.flush_inserts()
        ref_counts, unused, priorities = self.ref_counts, self._unused, self._priorities
        for block_id in block_ids:
            if ref_counts[block_id] == 0:
                del unused[block_id]
            ref_counts[block_id] += 1
            priorities[block_id] = priority
        if ttl is not None:
            self._keep(block_ids, ttl)
        self._policy.on_hit(list(block_ids))

    def release(self, block_ids: Sequence[int]) -> None:
        """One user less for each; a block without users is unused if it is cached, else free.

        Args:
            block_ids: the tail of the chain first.
        """
        ref_counts, hashes, unused = self.ref_counts, self._hashes, self._unused
        freed: list[int] = []
        for block_id in block_ids:
            count = ref_counts[block_id] - 1
            assert count >= 0, f"block {block_id} was released more often than it was handed out"
            ref_counts[block_id] = count
            if count == 0:
                if hashes[block_id] is None:
                    self._free.append(block_id)
                else:
                    unused[block_id] = None
                    freed.append(block_id)
        if freed:
            self.flush_inserts()
            self._policy.on_free(freed)

    def cache(
        self,
        block_id: int,
        block_hash: bytes,
        parent: bytes | None,
        depth: int,
        priority: int,
        group: int = 0,
        ttl: float | None = None,
    ) -> bool:
        """Let a block in use be found by its content.

        The policy hears of it at the next `flush_inserts`, or before any other event.

        Args:
            block_id: a block in use that is not cached yet.
            block_hash: its content hash.
            parent: the hash of the block before it, or None.
            depth: its position in its chain.
            priority: of the request that computes it.
            group: the layers whose cache it holds.
            ttl: seconds after its last use for which the request wants it kept.

        Returns:
            False, and nothing changes, if another block of the group has this content already.
        """
        by_hash = self.by_hash[group]
        if block_hash in by_hash:
            return False
        by_hash[block_hash] = block_id
        self._hashes[block_id] = block_hash
        self._parents[block_id] = parent
        self._groups[block_id] = group
        self._depths[block_id] = depth
        self._priorities[block_id] = priority
        self._ends[block_id] = False
        if ttl is not None:
            self._ttls[block_id] = ttl
        if parent is not None:
            num_children = self._num_children[group]
            num_children[parent] = num_children.get(parent, 0) + 1
        self._inserted.append(block_id)
        self.version += 1
        return True

    def mark_end(self, block_hash: bytes) -> None:
        """A request finished whose last full block has this content."""
        for by_hash in self.by_hash:
            block_id = by_hash.get(block_hash)
            if block_id is not None:
                self._ends[block_id] = True

    def uncache(self, block_ids: Sequence[int]) -> None:
        """Make blocks unfindable; those that nobody uses become free. Blocks that are not cached stay as they are."""
        cached = [block_id for block_id in block_ids if self._hashes[block_id] is not None]
        for block_id in cached:
            if self.ref_counts[block_id] == 0:
                self._free.append(block_id)
        self._forget(cached)

    def reset(self) -> None:
        """Make every block unfindable; those that nobody uses become free."""
        self.uncache(self.cached_blocks())

    def flush_inserts(self) -> None:
        """Tell the policy of the blocks that were cached since the last call."""
        if self._inserted:
            inserted, self._inserted = self._inserted, []
            self._policy.on_insert(inserted)

    def _keep(self, block_ids: Sequence[int], ttl: float) -> None:
        for block_id in block_ids:
            self._ttls[block_id] = max(ttl, self._ttls.get(block_id, ttl))

    def _evict(self, count: int) -> None:
        self.flush_inserts()
        victims = self._policy.pick_victims(count, self._unused)
        if victims is None:
            victims = list(islice(self._unused, count))
        self._free.extend(victims)
        self._forget(victims)

    def _forget(self, block_ids: list[int]) -> None:
        """Remove cached blocks from the index, and tell the policy while the view still answers for them."""
        if not block_ids:
            return
        self.flush_inserts()
        self.version += 1
        for block_id in block_ids:
            block_hash, parent, group = self._hashes[block_id], self._parents[block_id], self._groups[block_id]
            assert block_hash is not None
            del self.by_hash[group][block_hash]
            self._unused.pop(block_id, None)
            if parent is not None:
                num_children = self._num_children[group]
                left = num_children[parent] - 1
                if left:
                    num_children[parent] = left
                else:
                    del num_children[parent]
        try:
            self._policy.on_evict(list(block_ids))
        finally:
            for block_id in block_ids:
                self._hashes[block_id] = self._parents[block_id] = None
            if self._ttls:
                for block_id in block_ids:
                    self._ttls.pop(block_id, None)
