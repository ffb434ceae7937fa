"""The bounds of what any order of eviction can reach, by the rules of `vcore.simulate.cache_replay`.

`optimal_cache` knows the future: what is used again last, or never, goes first (L. A. Belady, "A study of
replacement algorithms for a virtual-storage computer", IBM Systems Journal 5(2), 1966), and a block of the request
that just ended may go at once. That is optimal here although a block hits only behind its parent: a parent is
always needed no later than its child, and of two that are needed together the child goes first.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from vcore.simulate.cache_replay import CacheCounts, check_prompts

__all__ = ["ideal_cache", "optimal_cache"]


def optimal_cache(prompts: Sequence[Sequence[int]], num_blocks: int) -> CacheCounts:
    """What a cache of `num_blocks` blocks hits at best; O(n log n) in all prompts' blocks together.

    Args:
        prompts: of each request, the ids of its prompt's blocks.
        num_blocks: size of the cache.

    Raises:
        ConfigError: `num_blocks` is below 1, or no prompt has a block.
    """
    check_prompts(prompts, num_blocks)
    next_uses = _next_uses(prompts)
    cached: dict[int, int] = {}  # block to its next use
    heap: list[tuple[int, int, int]] = []  # (-next use, -depth, block), of cached blocks and stale ones
    hits = 0
    for prompt, uses in zip(prompts, next_uses, strict=True):
        for block_id in prompt:
            if block_id not in cached:
                break
            hits += 1
        for depth, (block_id, use) in enumerate(zip(prompt, uses, strict=True)):
            cached[block_id] = use
            heapq.heappush(heap, (-use, -depth, block_id))
        while len(cached) > num_blocks:
            negative_use, _, block_id = heapq.heappop(heap)
            if cached.get(block_id) == -negative_use:
                del cached[block_id]
    return CacheCounts(hits, sum(map(len, prompts)))


def ideal_cache(prompts: Sequence[Sequence[int]]) -> CacheCounts:
    """What a cache without bounds hits.

    Args:
        prompts: of each request, the ids of its prompt's blocks.

    Raises:
        ConfigError: no prompt has a block.
    """
    check_prompts(prompts, 1)
    seen: set[int] = set()
    hits = 0
    for prompt in prompts:
        for block_id in prompt:
            if block_id not in seen:
                break
            hits += 1
        seen.update(prompt)
    return CacheCounts(hits, sum(map(len, prompts)))


def _next_uses(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """For each block of each request, which request uses it next; the number of requests if none does."""
    never = len(prompts)
    coming: dict[int, int] = {}
    uses: list[list[int]] = []
    for number in range(never - 1, -1, -1):
        prompt = prompts[number]
        uses.append([coming.get(block_id, never) for block_id in prompt])
        for block_id in prompt:
            coming[block_id] = number
    return uses[::-1]
