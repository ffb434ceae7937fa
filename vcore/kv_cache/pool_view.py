"""`PoolView`: the blocks of a pool as eviction policies see them, live and read only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vcore.kv_cache.block_pool import BlockPool

__all__ = ["PoolView"]


class PoolView:
    """The `vcore.interfaces.eviction.BlockView` of a pool. A block that is not cached is a KeyError."""

    __slots__ = ("_pool",)

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool

    def parent(self, block_id: int) -> int | None:
        """The cached block before it in its group, or None."""
        self._hash(block_id)
        parent = self._pool._parents[block_id]
        return None if parent is None else self._pool.by_hash[self._pool._groups[block_id]].get(parent)

    def num_children(self, block_id: int) -> int:
        """How many cached blocks follow it directly."""
        block_hash = self._hash(block_id)
        return self._pool._num_children[self._pool._groups[block_id]].get(block_hash, 0)

    def depth(self, block_id: int) -> int:
        """Its position in its chain, from 0."""
        self._hash(block_id)
        return self._pool._depths[block_id]

    def group(self, block_id: int) -> int:
        """The group of layers whose cache it holds."""
        self._hash(block_id)
        return self._pool._groups[block_id]

    def priority(self, block_id: int) -> int:
        """The priority of the request that last used it."""
        self._hash(block_id)
        return self._pool._priorities[block_id]

    def ttl(self, block_id: int) -> float | None:
        """Seconds after its last use for which a request asked to keep it, or None."""
        self._hash(block_id)
        return self._pool._ttls.get(block_id)

    def ends_sequence(self, block_id: int) -> bool:
        """Whether it was the last full block of a request that finished."""
        self._hash(block_id)
        return self._pool._ends[block_id]

    def content(self, block_id: int) -> bytes:
        """Its content hash; behind that, if there are several groups, its group."""
        block_hash, group = self._hash(block_id), self._pool._groups[block_id]
        return block_hash + group.to_bytes(2, "little") if group else block_hash

    def _hash(self, block_id: int) -> bytes:
        hashes = self._pool._hashes
        block_hash = hashes[block_id] if 0 < block_id < len(hashes) else None
        if block_hash is None:
            raise KeyError(f"block {block_id} is not cached")
        return block_hash
