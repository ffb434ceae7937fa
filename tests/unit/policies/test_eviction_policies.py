"""The order in which LRU and FIFO give blocks up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from vcore_policies.eviction.fifo import FIFOEviction
from vcore_policies.eviction.lru import LRUEviction

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.kv_cache import BlockPool


class Cache:
    """A pool in which chains are named by letters."""

    def __init__(self, policy: type[LRUEviction] | type[FIFOEviction], num_blocks: int = 7) -> None:
        self.made: list[EvictionPolicy] = []

        def make(context: EvictionContext) -> EvictionPolicy:
            self.made.append(policy(options=None, context=context))
            return self.made[0]

        self.pool = BlockPool(num_blocks, 4, make, eviction_name="test", strict=True)

    def insert(self, names: str) -> None:
        """A chain is computed in one step, and is in use."""
        blocks = self.pool.allocate(len(names))
        assert blocks is not None
        for depth, (block_id, name) in enumerate(zip(blocks, names, strict=True)):
            parent = names[depth - 1].encode() if depth else None
            assert self.pool.cache(block_id, name.encode(), parent, depth, 0)
        self.pool.flush_inserts()

    def hit(self, names: str) -> None:
        self.pool.acquire(self.blocks(names))

    def free(self, names: str) -> None:
        self.pool.release(self.blocks(names)[::-1])

    def blocks(self, names: str) -> list[int]:
        return [self.pool.by_hash[0][name.encode()] for name in names]

    def order(self) -> str:
        """The order in which everything unused would go."""
        names = {block_id: block_hash.decode() for block_hash, block_id in self.pool.by_hash[0].items()}
        count = len(self.pool._unused)
        order = "".join(names[block_id] for block_id in self.made[0].pick_victims(count))
        for fewer in range(count):
            assert [names[b] for b in self.made[0].pick_victims(fewer)] == list(order[:fewer])
        return order


def test_lru_gives_up_what_was_freed_first_and_a_chain_from_its_tail() -> None:
    cache = Cache(LRUEviction)
    cache.insert("abc")
    cache.insert("xy")
    cache.free("xy")
    cache.free("abc")
    assert cache.order() == "yxcba"


def test_lru_counts_a_hit_as_use() -> None:
    cache = Cache(LRUEviction)
    for name in "abc":
        cache.insert(name)
        cache.free(name)
    cache.hit("a")
    assert cache.order() == "bc"
    cache.free("a")
    assert cache.order() == "bca"


def test_lru_keeps_a_shared_head_longer_than_its_tail() -> None:
    cache = Cache(LRUEviction)
    cache.insert("abc")
    cache.hit("a")
    cache.free("abc")
    cache.free("a")
    assert cache.order() == "cba"


def test_fifo_gives_up_what_was_cached_first_however_often_it_was_hit() -> None:
    cache = Cache(FIFOEviction)
    for name in "abc":
        cache.insert(name)
    for name in "cab":
        cache.free(name)
    cache.hit("a")
    assert cache.order() == "bc"
    cache.free("a")
    assert cache.order() == "abc"


def test_fifo_gives_up_the_tail_first_of_blocks_cached_together() -> None:
    cache = Cache(FIFOEviction)
    cache.insert("abc")
    cache.insert("x")
    cache.free("x")
    cache.free("abc")
    assert cache.order() == "cbax"


def test_fifo_counts_content_that_is_cached_again_as_new() -> None:
    cache = Cache(FIFOEviction)
    cache.insert("a")
    cache.insert("b")
    cache.free("ab")
    cache.pool.uncache(cache.blocks("a"))
    cache.insert("a")
    cache.free("a")
    assert cache.order() == "ba"


@pytest.mark.parametrize("policy", [LRUEviction, FIFOEviction])
def test_nothing_is_kept_of_blocks_that_come_and_go(policy: type[LRUEviction]) -> None:
    cache = Cache(policy)
    for _ in range(500):
        cache.insert("abc")
        cache.free("abc")
        cache.pool.reset()
    sizes = [len(value) for value in vars(cache.made[0]).values() if isinstance(value, Sequence | set | dict)]
    assert max(sizes) < 100
