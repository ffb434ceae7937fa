"""What an eviction policy implements: which cached, unused block to give up first.

A policy works with block ids. It hears of cached blocks in batches and answers `pick_victims`; the
block pool checks each answer, and serves by its own order (longest free first) if one is wrong.
Blocks that hold nothing reusable never reach a policy: the core takes them first.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["BlockView", "EvictionContext", "EvictionPolicy"]


class BlockView(Protocol):
    """Cached blocks as a policy sees them: live and read only. Every method takes the id of a cached block."""

    def parent(self, block_id: int) -> int | None:
        """The cached block that comes before it in its chain, or None."""
        ...

    def num_children(self, block_id: int) -> int:
        """How many cached blocks follow it directly."""
        ...

    def depth(self, block_id: int) -> int:
        """Its position in its chain; 0 for the first block of a prompt."""
        ...

    def group(self, block_id: int) -> int:
        """The KV-cache group (layers with one kind of cache) that it belongs to."""
        ...

    def priority(self, block_id: int) -> int:
        """The priority of the request that last used it; lower is more urgent."""
        ...

    def ttl(self, block_id: int) -> float | None:
        """Seconds after its last use for which a request asked to keep it, the most that one asked for, or None."""
        ...

    def ends_sequence(self, block_id: int) -> bool:
        """Whether it was the last full block of a request that finished."""
        ...

    def content(self, block_id: int) -> bytes:
        """What it is known by: equal whenever a block of its group holds the same tokens behind the same beginning.

        So a policy may remember what it gave up, and know it when it is computed again.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictionContext:
    """What the core tells an eviction policy when it builds it."""

    view: BlockView
    num_blocks: int
    """Ids are below it; the cache holds no more."""
    block_size: int
    """Tokens a block holds."""
    clock: Callable[[], float] = time.monotonic
    """Seconds, never running backwards; a simulation has its own."""


class EvictionPolicy(ABC):
    """An order of eviction (API 1.0).

    The plugin's `load` is called with ``options`` and ``context`` (an `EvictionContext`). A block's
    life: `on_insert` (its content is now cached; it is in use), then any number of `on_hit` and
    `on_free`, then `on_evict`. It may be evicted only between an `on_free` and the next `on_hit`.
    Within a batch, ids stand in the order in which the events happened.
    """

    @abstractmethod
    def on_insert(self, block_ids: Sequence[int]) -> None:
        """These blocks, in use, now hold cached content. Parents come before children."""

    @abstractmethod
    def on_hit(self, block_ids: Sequence[int]) -> None:
        """A request reuses these cached blocks, whether or not others use them already."""

    @abstractmethod
    def on_free(self, block_ids: Sequence[int]) -> None:
        """Nobody uses these cached blocks any more. The tail of a chain comes before its head."""

    @abstractmethod
    def on_evict(self, block_ids: Sequence[int]) -> None:
        """These blocks are no longer cached: evicted (whoever picked them), withdrawn or reset. Forget them.

        Until it returns the view still answers for them, and counts of children leave them out already.
        """

    @abstractmethod
    def pick_victims(self, count: int) -> Sequence[int]:
        """`count` different blocks that nobody uses, the first to go first. Does not change the policy's state:
        `on_evict` follows."""
