"""Prefix hits: what can be found, when, and when no more."""

from __future__ import annotations

import pytest
from vcore_policies.eviction.lru import LRUEviction

from vcore.kv_cache import KVCacheManager, RequestBlocks

SIZE = 4


@pytest.fixture
def kv() -> KVCacheManager:
    return manager()


def manager(*, prefix_caching: bool = True, num_blocks: int = 20) -> KVCacheManager:
    return KVCacheManager(
        num_blocks,
        SIZE,
        lambda context: LRUEviction(options=None, context=context),
        eviction_name="lru",
        prefix_caching=prefix_caching,
    )


def compute(kv: KVCacheManager, tokens: list[int], extra_keys: tuple[str, ...] = ()) -> RequestBlocks:
    """A request that computes all of `tokens` in a step that is planned now."""
    blocks = kv.open(extra_keys, 0)
    match = kv.find_prefix(blocks, tokens)
    kv.admit(blocks, match, kv.needs.num_columns(len(tokens)) - match.num_columns)
    kv.publish(blocks, tokens, len(tokens))
    return blocks


def hits(kv: KVCacheManager, tokens: list[int], extra_keys: tuple[str, ...] = ()) -> int:
    return kv.find_prefix(kv.open(extra_keys, 0), tokens).num_columns


def test_a_block_is_hit_once_its_step_is_launched(kv: KVCacheManager) -> None:
    tokens = list(range(10))
    compute(kv, tokens)
    match = kv.find_prefix(kv.open((), 0), tokens)
    assert (match.block_ids, match.next_is_filling) == ([[]], True)
    kv.end_step()
    match = kv.find_prefix(kv.open((), 0), tokens)
    assert (match.block_ids, match.next_is_filling) == ([[1, 2]], False)


def test_at_least_one_token_is_left_to_compute(kv: KVCacheManager) -> None:
    compute(kv, list(range(8)))
    kv.end_step()
    assert hits(kv, list(range(8))) == 1
    assert hits(kv, list(range(9))) == 2
    assert hits(kv, [0]) == 0


def test_only_full_blocks_with_known_tokens_are_published(kv: KVCacheManager) -> None:
    blocks = kv.open((), 0)
    kv.admit(blocks, kv.find_prefix(blocks, [1, 2]), 3)
    assert kv.publish(blocks, list(range(7)), 12) == 1
    assert kv.publish(blocks, list(range(12)), 7) == 1
    assert kv.publish(blocks, list(range(12)), 12) == 3


def test_salts_do_not_share(kv: KVCacheManager) -> None:
    tokens = list(range(9))
    compute(kv, tokens, ("a",))
    kv.end_step()
    assert (hits(kv, tokens), hits(kv, tokens, ("b",)), hits(kv, tokens, ("a",))) == (0, 0, 2)


def test_a_hit_counts_what_it_takes_from_the_available(kv: KVCacheManager) -> None:
    tokens = list(range(9))
    first = compute(kv, tokens)
    kv.end_step()
    assert kv.find_prefix(kv.open((), 0), tokens).num_unused == [0]
    kv.release(first, finished=True)
    assert kv.find_prefix(kv.open((), 0), tokens).num_unused == [2]


def test_hits_are_not_evicted_for_the_rest_of_the_same_request(kv: KVCacheManager) -> None:
    kv = manager(num_blocks=4)
    tokens = list(range(9))
    kv.release(compute(kv, tokens), finished=True)
    kv.end_step()
    blocks = compute(kv, tokens)
    assert blocks.block_ids[0][:2] == [1, 2]
    assert len(set(blocks.block_ids[0])) == 3


def test_withdrawn_blocks_are_not_found_any_more(kv: KVCacheManager) -> None:
    tokens = list(range(9))
    compute(kv, tokens[:5])
    kv.end_step()
    compute(kv, tokens)
    kv.withdraw(kv.end_step())
    assert hits(kv, tokens) == 1, "what an earlier step filled stays"


def test_withdrawing_spares_a_block_that_holds_something_else_by_now(kv: KVCacheManager) -> None:
    kv = manager(num_blocks=2)
    blocks = compute(kv, [1, 2, 3, 4])
    filled = kv.end_step()
    kv.release(blocks, finished=False)
    kv.release(compute(kv, [5, 6, 7, 8]), finished=False)
    kv.end_step()
    kv.withdraw(filled)
    assert hits(kv, [5, 6, 7, 8, 9]) == 1


def test_retracting_undoes_this_step_only(kv: KVCacheManager) -> None:
    tokens = list(range(12))
    blocks = kv.open((), 0)
    kv.admit(blocks, kv.find_prefix(blocks, tokens), 3)
    kv.publish(blocks, tokens, 4)
    kv.end_step()
    kv.publish(blocks, tokens, 8)
    kv.retract(blocks)
    assert kv.end_step() == []
    assert hits(kv, tokens) == 1


def test_forgetting_makes_every_block_of_a_request_unfindable(kv: KVCacheManager) -> None:
    tokens = list(range(9))
    blocks = compute(kv, tokens)
    kv.end_step()
    kv.forget(blocks)
    kv.release(blocks, finished=True)
    assert hits(kv, tokens) == 0
    assert kv.pool.num_available == 19


def test_the_last_full_block_of_a_finished_request_is_marked(kv: KVCacheManager) -> None:
    first = compute(kv, list(range(9)))
    kv.end_step()
    second = compute(kv, list(range(12)))
    kv.end_step()
    kv.release(first, finished=True)
    assert [kv.pool._ends[block_id] for block_id in (1, 2)] == [False, True]
    kv.release(second, finished=False)
    assert not kv.pool._ends[3]


def test_without_prefix_caching_nothing_is_found_or_hashed() -> None:
    kv = manager(prefix_caching=False)
    blocks = kv.open((), 0)
    match = kv.find_prefix(blocks, list(range(9)))
    assert (match.block_ids, blocks.chain.hashes) == ([[]], [])


def test_reset_forgets_everything(kv: KVCacheManager) -> None:
    blocks = compute(kv, list(range(9)))
    kv.reset()
    assert kv.end_step() == []
    assert hits(kv, list(range(9))) == 0
    kv.release(blocks, finished=True)
    assert kv.pool.num_available == 19
