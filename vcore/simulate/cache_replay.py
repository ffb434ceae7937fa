"""`CacheReplay`: the prefix cache alone, served requests one after another.

The real block pool and the real policies; no scheduler, and no time but that of arrivals. The rules:

- A request hits the longest beginning of its prompt that is cached, its last block included, even a partial one.
- While it runs, its blocks are its own, and do not count against the size of the cache.
- When it ends, all blocks of its prompt are offered to the cache, and blocks are evicted until no more than
  `num_blocks` are left, its own among them. What it generated is not cached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from vcore.errors import ConfigError
from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.kv_cache.block_pool import BlockPool
from vcore.traces import TraceRequest

__all__ = ["CacheCounts", "CacheReplay", "replay_cache"]

_MOST_BLOCKS = 100_000_000


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """What became of the prompt blocks of a replay."""

    hits: int
    """Blocks that were found in the cache, as a leading run of their prompt."""
    blocks: int
    """Prompt blocks in all."""

    @property
    def hit_rate(self) -> float:
        """Share of blocks that hit; 0 if there were none."""
        return self.hits / self.blocks if self.blocks else 0.0


class CacheReplay:
    """A cache that keeps `num_blocks` blocks between requests."""

    def __init__(
        self,
        num_blocks: int,
        longest: int,
        make_eviction: Callable[[EvictionContext], EvictionPolicy],
        *,
        eviction_name: str,
        block_size: int = 16,
    ) -> None:
        """An empty cache.

        Args:
            num_blocks: blocks that stay when no request runs.
            longest: most blocks of a prompt; there is room for one such beside the cache.
            make_eviction: builds the policy.
            eviction_name: what it is called in errors.
            block_size: tokens a block; only told to the policy.
        """
        self._num_kept = num_blocks
        self._pool = BlockPool(
            num_blocks + longest + 1, block_size, make_eviction, eviction_name=eviction_name, strict=True
        )

    def cached_ids(self) -> set[int]:
        """The ids of the blocks that are cached."""
        return {int.from_bytes(key, "little", signed=True) for key in self._pool.by_hash[0]}

    def serve(self, block_ids: Sequence[int], priority: int = 0, ttl: float | None = None) -> int:
        """Run one request from its beginning to its end.

        Args:
            block_ids: what its prompt consists of, each id at most once; an id stands for everything up to its block.
            priority: the request's, for policies that use it.
            ttl: seconds for which it asks to keep its blocks.

        Returns:
            How many of its blocks hit.

        Raises:
            vcore.errors.PolicyError: the policy broke its contract.
        """
        if not block_ids:
            return 0
        pool = self._pool
        keys = list(map(_key, block_ids))
        by_hash, hits = pool.by_hash[0], []
        for key in keys:
            found = by_hash.get(key)
            if found is None:
                break
            hits.append(found)
        num_hits = len(hits)
        # Cached, but behind a block that is not: no hits, yet offered again with all others.
        stranded = [by_hash[key] for key in keys[num_hits:] if key in by_hash]
        pool.acquire(hits, priority, ttl)
        pool.acquire(stranded, priority, ttl)
        fresh = pool.allocate(len(keys) - num_hits - len(stranded))
        assert fresh is not None  # the pool has room for the longest
        blocks = self._cache(keys, num_hits, iter(fresh), hits, priority, ttl)
        pool.mark_end(keys[-1])
        pool.release(blocks[::-1])
        self._trim()
        return num_hits

    def _cache(
        self,
        keys: Sequence[bytes],
        start: int,
        fresh: Iterable[int],
        hits: list[int],
        priority: int,
        ttl: float | None,
    ) -> list[int]:
        """Every block of the request, head first; those that were not cached now are, in `fresh` ones."""
        pool, blocks, unfilled = self._pool, hits, iter(fresh)
        by_hash = pool.by_hash[0]
        for depth in range(start, len(keys)):
            key = keys[depth]
            block_id = by_hash.get(key)
            if block_id is None:
                block_id = next(unfilled)
                pool.cache(block_id, key, keys[depth - 1] if depth else None, depth, priority, ttl=ttl)
            blocks.append(block_id)
        pool.flush_inserts()
        return blocks

    def _trim(self) -> None:
        """Evict what is too much."""
        pool = self._pool
        excess = pool.num_cached - self._num_kept
        if excess > 0:
            # Taking every free block and so many more evicts exactly these.
            taken = pool.allocate(pool.num_available - self._num_kept)
            assert taken is not None
            pool.release(taken)


def replay_cache(
    prompts: Sequence[Sequence[int]],
    num_blocks: int,
    make_eviction: Callable[[EvictionContext], EvictionPolicy],
    *,
    eviction_name: str,
    block_size: int = 16,
    requests: Sequence[TraceRequest] | None = None,
) -> CacheCounts:
    """Serve prompts one after another.

    Args:
        prompts: of each request, the ids of its prompt's blocks (`vcore.simulate.block_names.number_blocks`).
        num_blocks: size of the cache.
        make_eviction: builds the policy.
        eviction_name: what it is called in errors.
        block_size: tokens a block; only told to the policy.
        requests: whose prompts they are: their priority and time to live are the policy's to know, and each comes and
            goes at its arrival, by the policy's clock. None: they ask for nothing.

    Raises:
        ConfigError: `num_blocks` is below 1, or no prompt has a block.
        vcore.errors.PolicyError: the policy broke its contract.
    """
    check_prompts(prompts, num_blocks)
    now = 0.0

    def make(context: EvictionContext) -> EvictionPolicy:
        return make_eviction(replace(context, clock=lambda: now))

    longest = max(map(len, prompts))
    cache = CacheReplay(num_blocks, longest, make, eviction_name=eviction_name, block_size=block_size)
    hits = 0
    if requests is None:
        hits = sum(map(cache.serve, prompts))
    else:
        for prompt, request in zip(prompts, requests, strict=True):
            now = request.arrival_s
            hits += cache.serve(prompt, request.priority, request.cache_ttl)
    return CacheCounts(hits, sum(map(len, prompts)))


def _key(block_id: int) -> bytes:
    """What the pool knows the block by: 8 bytes, or more where the id needs them."""
    return block_id.to_bytes(max(8, block_id.bit_length() // 8 + 1), "little", signed=True)


def check_prompts(prompts: Sequence[Sequence[int]], num_blocks: int) -> None:
    """That there is something to replay.

    Raises:
        ConfigError: `num_blocks` is below 1 or beyond all measure, or no prompt has a block.
    """
    check_num_blocks(num_blocks)
    if not any(prompts):
        raise ConfigError(
            "no request of the trace says what its prompt's blocks are, so nothing can hit; "
            "expected a trace with block ids, such as Mooncake's hash_ids"
        )


def check_num_blocks(num_blocks: int) -> None:
    """That a cache of so many blocks can be held in memory; each takes about 100 bytes.

    Raises:
        ConfigError: it cannot.
    """
    if not 1 <= num_blocks <= _MOST_BLOCKS:
        raise ConfigError(f"the cache has {num_blocks} blocks, expected from 1 to {_MOST_BLOCKS:,}")
