"""`BlockMap`: what every block of the cache is used for at one moment, for a picture of it."""

from __future__ import annotations

from dataclasses import dataclass

from vcore.kv_cache.block_pool import BlockPool

__all__ = ["BlockMap", "block_map"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockMap:
    """A snapshot of the block pool. The null block, which is nobody's, is not counted in `used`, `free` or `cached`."""

    num_blocks: int
    """All blocks, the null block among them."""
    block_size: int
    """Tokens a block holds."""
    used: int
    """Blocks that requests use."""
    free: int
    """Blocks that no request uses, cached ones included."""
    cached: int
    """Blocks that can be hit, used or not."""
    states: bytes
    """One byte a block, by its id: 0 free, 1 used, 2 cached and used by nobody, 3 used and cached."""


def block_map(pool: BlockPool, block_size: int) -> BlockMap:
    """The state of every block of `pool`: linear in their number, a few milliseconds for a hundred thousand."""
    states = bytearray(map(bool, pool.ref_counts))
    for block_id in pool.cached_blocks():
        states[block_id] |= 2
    return BlockMap(
        num_blocks=pool.num_blocks,
        block_size=block_size,
        used=pool.num_blocks - 1 - pool.num_available,
        free=pool.num_available,
        cached=pool.num_cached,
        states=bytes(states),
    )
