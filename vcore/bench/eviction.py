"""What an eviction policy costs: its own time, an event, in a cache of many blocks that is full."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vcore.config import EngineConfig
from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.simulate.cache_replay import CacheReplay
from vcore.simulate.cache_report import find_evictions

__all__ = ["TimedEviction", "measure_eviction"]

PROMPT_BLOCKS = 64
MIN_REQUESTS = 1500


class TimedEviction(EvictionPolicy):
    """A policy, with a count of the blocks that it heard of and the time that it took."""

    def __init__(self, policy: EvictionPolicy) -> None:
        self._policy = policy
        self.events = 0
        """Blocks inserted, hit, freed and evicted. A victim that is picked is no event of its own."""
        self.seconds = 0.0

    def on_insert(self, block_ids: Sequence[int]) -> None:
        """Timed."""
        self._tell(self._policy.on_insert, block_ids)

    def on_hit(self, block_ids: Sequence[int]) -> None:
        """Timed."""
        self._tell(self._policy.on_hit, block_ids)

    def on_free(self, block_ids: Sequence[int]) -> None:
        """Timed."""
        self._tell(self._policy.on_free, block_ids)

    def on_evict(self, block_ids: Sequence[int]) -> None:
        """Timed."""
        self._tell(self._policy.on_evict, block_ids)

    def pick_victims(self, count: int) -> Sequence[int]:
        """Timed."""
        began = time.perf_counter()
        victims = self._policy.pick_victims(count)
        self.seconds += time.perf_counter() - began
        return victims

    def reset(self) -> None:
        """Count from here."""
        self.events, self.seconds = 0, 0.0

    def _tell(self, callback: Callable[[Sequence[int]], None], block_ids: Sequence[int]) -> None:
        began = time.perf_counter()
        callback(block_ids)
        self.seconds += time.perf_counter() - began
        self.events += len(block_ids)


def measure_eviction(
    config: EngineConfig,
    policies: Sequence[str],
    *,
    num_blocks: int = 100_000,
    base_dir: Path | None = None,
) -> list[dict[str, Any]]:
    """Time policies over prompts that share beginnings of uneven popularity, once the cache is full.

    Args:
        config: says which plugins there are, and the options of ``cache.eviction``.
        policies: their names.
        num_blocks: size of the cache.
        base_dir: where relative paths of ``config.plugins.load`` start.

    Returns:
        For each ``eviction``, ``num_blocks``, ``events``, ``us_per_event`` and ``events_per_s``.

    Raises:
        PluginError: a policy is missing, broken or ambiguous.
        PolicyError: a policy broke its contract.
    """
    rows: list[dict[str, Any]] = []
    for name, make in find_evictions(config, policies, base_dir):
        timed = _run(make, name, num_blocks)
        row = {"eviction": name, "num_blocks": num_blocks, "events": timed.events}
        row |= {"us_per_event": timed.seconds / timed.events * 1e6, "events_per_s": timed.events / timed.seconds}
        rows.append(row)
    return rows


def _run(make: Callable[[EvictionContext], EvictionPolicy], name: str, num_blocks: int) -> TimedEviction:
    made: list[TimedEviction] = []

    def timed(context: EvictionContext) -> EvictionPolicy:
        made.append(TimedEviction(make(context)))
        return made[0]

    cache = CacheReplay(num_blocks, PROMPT_BLOCKS, timed, eviction_name=name)
    rng = random.Random(0)
    num_beginnings = max(1, num_blocks // PROMPT_BLOCKS)
    # Of each request half of the prompt is one of these, the first the most popular, and half is its own.
    weights = [1.0 / (rank + 1) for rank in range(num_beginnings)]
    num_filling = 2 * num_blocks // PROMPT_BLOCKS
    num_requests = num_filling + max(MIN_REQUESTS, num_filling)
    half = PROMPT_BLOCKS // 2
    for number, beginning in enumerate(rng.choices(range(num_beginnings), weights, k=num_requests)):
        if number == num_filling:
            made[0].reset()
        own = (num_beginnings + number) * half
        cache.serve([*range(beginning * half, (beginning + 1) * half), *range(own, own + half)])
    return made[0]
