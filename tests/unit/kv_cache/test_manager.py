"""Prefix hits: what can be found, when, and when no more."""

from __future__ import annotations

import pytest
from vcore_policies.eviction.lru import LRUEviction

from vcore.interfaces.eviction import EvictionContext
from vcore.kv_cache import KVCacheManager, RequestBlocks

SIZE = 4


@pytest.fixture
def kv() -> KVCacheManager:
    return manager()


def manager(
    *, prefix_caching: bool = True, num_blocks: int = 20, windows: tuple[int | None, ...] = (None,)
) -> KVCacheManager:
    return KVCacheManager(
        num_blocks,
        SIZE,
        lambda context: LRUEviction(options=None, context=context),
        eviction_name="lru",
        windows=windows,
        max_chunk=16,
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


def test_the_version_tells_that_a_hit_may_be_longer_now(kv: KVCacheManager) -> None:
    """Whoever remembers a hit while its blocks were being filled looks again once the step is launched."""
    compute(kv, list(range(9)))
    version = kv.pool.version
    assert hits(kv, list(range(9))) == 0
    kv.end_step()
    assert hits(kv, list(range(9))) == 2
    assert kv.pool.version != version


def test_blocks_behind_a_window_are_nulled_once_and_stay_findable() -> None:
    kv = manager(windows=(None, 5))
    tokens = list(range(14))
    blocks = compute(kv, tokens)
    kv.end_step()
    full, window = (list(ids) for ids in blocks.block_ids)
    assert kv.next_pass(blocks) == 8  # token 8 sees from 4 on
    assert kv.take_passed(blocks, 7) == []
    taken = kv.take_passed(blocks, 14)  # token 14 sees from 10 on
    assert taken == [(1, 0, window[0]), (1, 1, window[1])]
    assert blocks.block_ids == [full, [0, 0, *window[2:]]]
    assert kv.next_pass(blocks) == 16
    assert kv.take_passed(blocks, 14) == []
    kv.pool.release([block_id for _, _, block_id in taken])
    match = kv.find_prefix(kv.open((), 0), tokens[:9])
    assert match.block_ids == [full[:2], [0, window[1]]]
    assert match.num_unused == [0, 1]


def test_blocks_leave_from_the_tail_column_by_column() -> None:
    kv = manager(windows=(None, 5))
    blocks = compute(kv, list(range(14)))
    assert blocks.held() == [7, 8, 5, 6, 3, 4, 1, 2]
    kv.take_passed(blocks, 14)
    assert blocks.held() == [7, 8, 5, 6, 3, 1]


def test_a_hit_takes_no_block_that_nobody_sees() -> None:
    kv = manager(windows=(5,))
    first = compute(kv, list(range(14)))
    kv.end_step()
    kv.release(first, finished=True)
    blocks = kv.open((), 0)
    match = kv.find_prefix(blocks, list(range(14)))
    assert match.block_ids == [[0, 0, 3]]
    kv.admit(blocks, match, 1)
    assert (blocks.num_passed, blocks.num_columns, blocks.num_published) == ([2], 4, 3)
    assert kv.pool.ref_counts[1:4] == [0, 0, 1]
    kv.release(blocks, finished=False)
    assert kv.pool.num_available == 19


def test_forgetting_reaches_what_the_window_has_passed() -> None:
    kv = manager(windows=(5,))
    blocks = compute(kv, list(range(14)))
    kv.end_step()
    kv.pool.release([block_id for _, _, block_id in kv.take_passed(blocks, 14)])
    kv.forget(blocks)
    assert kv.pool.num_cached == 0


def test_a_time_to_live_reaches_what_a_request_computes_and_what_it_hits() -> None:
    contexts: list[EvictionContext] = []

    def make(context: EvictionContext) -> LRUEviction:
        contexts.append(context)
        return LRUEviction(options=None, context=context)

    kv = KVCacheManager(20, SIZE, make, eviction_name="lru")
    for ttl, tokens in ((None, range(9)), (60.0, range(17))):
        blocks = kv.open((), 0, ttl)
        match = kv.find_prefix(blocks, list(tokens))
        kv.admit(blocks, match, kv.needs.num_columns(len(tokens)) - match.num_columns)
        kv.publish(blocks, list(tokens), len(tokens))
        kv.end_step()
        [view] = [context.view for context in contexts]
        full = blocks.block_ids[0][: len(tokens) // SIZE]
        assert [view.ttl(block_id) for block_id in full] == [ttl] * len(full)
        kv.release(blocks, finished=True)
