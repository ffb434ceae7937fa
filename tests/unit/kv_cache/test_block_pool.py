"""The block pool: who uses which block, what is cached, what is evicted, and what the policy hears."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from vcore_policies.eviction.lru import LRUEviction

from vcore.interfaces.eviction import BlockView, EvictionContext, EvictionPolicy
from vcore.kv_cache import BlockPool


class RecordingLRU(LRUEviction):
    """LRU that writes down what it hears, and looks at the view while it is told of an eviction."""

    def __init__(self, context: EvictionContext) -> None:
        super().__init__(options=None, context=context)
        self.context = context
        self.events: list[tuple[str, list[int]]] = []
        self.seen_at_evict: dict[int, tuple[int | None, int]] = {}

    def on_insert(self, block_ids: Sequence[int]) -> None:
        self.events.append(("insert", list(block_ids)))

    def on_hit(self, block_ids: Sequence[int]) -> None:
        super().on_hit(block_ids)
        self.events.append(("hit", list(block_ids)))

    def on_free(self, block_ids: Sequence[int]) -> None:
        super().on_free(block_ids)
        self.events.append(("free", list(block_ids)))

    def on_evict(self, block_ids: Sequence[int]) -> None:
        super().on_evict(block_ids)
        self.events.append(("evict", list(block_ids)))
        view = self.context.view
        for block_id in block_ids:
            self.seen_at_evict[block_id] = (view.parent(block_id), view.num_children(block_id))


class Fixture:
    def __init__(self, num_blocks: int = 8, num_groups: int = 1) -> None:
        self.made: list[RecordingLRU] = []
        self.pool = BlockPool(num_blocks, 4, self.make, eviction_name="recording", num_groups=num_groups)
        self.policy = self.made[0]

    def make(self, context: EvictionContext) -> EvictionPolicy:
        self.made.append(RecordingLRU(context))
        return self.made[-1]

    @property
    def view(self) -> BlockView:
        return self.policy.context.view

    def cached_chain(self, *hashes: bytes, priority: int = 0) -> list[int]:
        """A chain of cached blocks with one user."""
        blocks = self.pool.allocate(len(hashes))
        assert blocks is not None
        for depth, (block_id, block_hash) in enumerate(zip(blocks, hashes, strict=True)):
            assert self.pool.cache(block_id, block_hash, hashes[depth - 1] if depth else None, depth, priority)
        return blocks


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


def test_the_null_block_is_never_handed_out(fixture: Fixture) -> None:
    assert fixture.pool.num_available == 7
    assert fixture.pool.allocate(7) == [1, 2, 3, 4, 5, 6, 7]


def test_a_shortage_gives_none_and_changes_nothing(fixture: Fixture) -> None:
    fixture.pool.allocate(5)
    assert fixture.pool.allocate(3) is None
    assert fixture.pool.num_available == 2


def test_allocating_nothing_takes_nothing(fixture: Fixture) -> None:
    assert fixture.pool.allocate(0) == []
    assert fixture.pool.num_available == 7


def test_blocks_with_nothing_in_them_are_reused_before_cached_ones(fixture: Fixture) -> None:
    cached = fixture.cached_chain(b"a", b"b")
    fixture.pool.release(cached[::-1])
    taken = fixture.pool.allocate(5)
    assert taken is not None
    assert not set(taken) & set(cached)
    assert fixture.pool.num_cached == 2


def test_eviction_takes_exactly_what_is_missing_tail_first(fixture: Fixture) -> None:
    cached = fixture.cached_chain(b"a", b"b", b"c")
    fixture.pool.release(cached[::-1])
    taken = fixture.pool.allocate(6)
    assert taken is not None
    assert set(cached[1:]) <= set(taken)
    assert fixture.pool.by_hash == ({b"a": cached[0]},)
    assert fixture.policy.events[-1] == ("evict", [cached[2], cached[1]])


def test_one_hash_has_one_block(fixture: Fixture) -> None:
    first = fixture.cached_chain(b"a")[0]
    second = fixture.pool.allocate(1)
    assert second is not None
    assert not fixture.pool.cache(second[0], b"a", None, 0, 0)
    assert fixture.pool.by_hash == ({b"a": first},)
    fixture.pool.release(second)
    assert fixture.pool.num_cached == 1
    assert fixture.policy.events == [], "the second block never was cached, so nobody hears of it"


def test_a_block_with_two_users_stays_in_use_until_both_leave(fixture: Fixture) -> None:
    (block_id,) = fixture.cached_chain(b"a")
    fixture.pool.acquire([block_id])
    fixture.pool.release([block_id])
    assert fixture.pool.num_available == 6
    fixture.pool.release([block_id])
    assert fixture.pool.num_available == 7
    assert [event for event, _ in fixture.policy.events] == ["insert", "hit", "free"]


def test_releasing_too_often_is_noticed(fixture: Fixture) -> None:
    blocks = fixture.pool.allocate(1)
    assert blocks is not None
    fixture.pool.release(blocks)
    with pytest.raises(AssertionError, match="more often"):
        fixture.pool.release(blocks)


def test_the_policy_hears_of_an_insertion_before_anything_else_of_the_block(fixture: Fixture) -> None:
    blocks = fixture.cached_chain(b"a", b"b")
    fixture.pool.release(blocks[::-1])
    assert fixture.policy.events == [("insert", blocks), ("free", blocks[::-1])]


def test_uncaching_a_used_block_leaves_it_to_its_user(fixture: Fixture) -> None:
    blocks = fixture.cached_chain(b"a", b"b")
    fixture.pool.uncache([blocks[1], 7])
    assert fixture.pool.num_available == 5
    assert fixture.pool.by_hash == ({b"a": blocks[0]},)
    fixture.pool.release(blocks[::-1])
    assert fixture.policy.events[-1] == ("free", [blocks[0]])


def test_uncaching_an_unused_block_frees_it(fixture: Fixture) -> None:
    blocks = fixture.cached_chain(b"a", b"b")
    fixture.pool.release(blocks[::-1])
    fixture.pool.uncache([blocks[1]])
    assert fixture.pool.num_available == 7
    taken = fixture.pool.allocate(6)
    assert taken is not None
    assert blocks[0] not in taken


def test_reset_forgets_used_and_unused_blocks(fixture: Fixture) -> None:
    used, unused = fixture.cached_chain(b"a"), fixture.cached_chain(b"b")
    fixture.pool.release(unused)
    fixture.pool.reset()
    assert fixture.pool.num_cached == 0
    assert fixture.pool.num_available == 6
    assert fixture.pool.ref_counts[used[0]] == 1


def test_the_view_tells_the_place_in_the_chain(fixture: Fixture) -> None:
    head, middle, tail = fixture.cached_chain(b"a", b"b", b"c", priority=3)
    view = fixture.view
    assert [view.parent(b) for b in (head, middle, tail)] == [None, head, middle]
    assert [view.num_children(b) for b in (head, middle, tail)] == [1, 1, 0]
    assert [view.depth(b) for b in (head, middle, tail)] == [0, 1, 2]
    assert (view.priority(head), view.group(head), view.ttl(head), view.ends_sequence(tail)) == (3, 0, None, False)
    fixture.pool.mark_end(b"c")
    fixture.pool.mark_end(b"unknown")
    assert view.ends_sequence(tail)
    assert not view.ends_sequence(middle)


def test_the_view_refuses_blocks_that_are_not_cached(fixture: Fixture) -> None:
    for block_id in (0, 1, -1, 1000):
        with pytest.raises(KeyError, match=f"block {block_id} is not cached"):
            fixture.view.depth(block_id)


def test_the_last_users_priority_is_told(fixture: Fixture) -> None:
    (block_id,) = fixture.cached_chain(b"a", priority=3)
    fixture.pool.acquire([block_id], priority=-1)
    assert fixture.view.priority(block_id) == -1


def test_the_longest_time_to_live_that_was_asked_for_is_told_while_the_block_is_cached(fixture: Fixture) -> None:
    blocks = fixture.pool.allocate(2)
    assert blocks is not None
    asked, other = blocks
    fixture.pool.cache(asked, b"a", None, 0, 0, ttl=5.0)
    fixture.pool.cache(other, b"b", b"a", 1, 0)
    view = fixture.view
    assert (view.ttl(asked), view.ttl(other)) == (5.0, None)
    fixture.pool.acquire([asked, other], ttl=3.0)
    assert (view.ttl(asked), view.ttl(other)) == (5.0, 3.0)
    fixture.pool.acquire([asked, other], ttl=30.0)
    fixture.pool.acquire([asked, other])
    assert (view.ttl(asked), view.ttl(other)) == (30.0, 30.0)
    fixture.pool.uncache([asked])
    assert fixture.pool.cache(asked, b"c", None, 0, 0)
    assert view.ttl(asked) is None


def test_content_tells_what_is_computed_again_and_in_which_group() -> None:
    fixture = Fixture(8, num_groups=2)
    blocks = fixture.pool.allocate(3)
    assert blocks is not None
    for group, block_id in enumerate(blocks[:2]):
        fixture.pool.cache(block_id, b"a", None, 0, 0, group)
    first, second = (fixture.view.content(block_id) for block_id in blocks[:2])
    assert first != second
    fixture.pool.uncache([blocks[0]])
    fixture.pool.cache(blocks[2], b"a", None, 0, 0, 0)
    assert fixture.view.content(blocks[2]) == first


def test_children_are_counted_across_the_eviction_of_their_parent(fixture: Fixture) -> None:
    head, _ = fixture.cached_chain(b"a", b"b")
    fixture.pool.uncache([head])
    assert fixture.view.parent(2) is None
    again = fixture.pool.allocate(1)
    assert again is not None
    fixture.pool.cache(again[0], b"a", None, 0, 0)
    assert fixture.view.num_children(again[0]) == 1
    assert fixture.view.parent(2) == again[0]
    fixture.pool.uncache([2])
    assert fixture.view.num_children(again[0]) == 0


def test_while_a_policy_hears_of_an_eviction_the_view_still_answers(fixture: Fixture) -> None:
    head, tail = fixture.cached_chain(b"a", b"b")
    fixture.pool.uncache([tail])
    assert fixture.policy.seen_at_evict[tail] == (head, 0)
    assert fixture.view.num_children(head) == 0


def test_the_version_changes_with_the_set_of_cached_blocks(fixture: Fixture) -> None:
    version = fixture.pool.version
    blocks = fixture.cached_chain(b"a")
    assert fixture.pool.version != version
    version = fixture.pool.version
    fixture.pool.acquire(blocks)
    assert fixture.pool.version == version
    fixture.pool.reset()
    assert fixture.pool.version != version


def test_groups_have_their_own_blocks_of_one_content() -> None:
    fixture = Fixture(8, num_groups=2)
    blocks = fixture.pool.allocate(4)
    assert blocks is not None
    for group, (head, tail) in enumerate((blocks[:2], blocks[2:])):
        assert fixture.pool.cache(head, b"a", None, 0, 0, group)
        assert fixture.pool.cache(tail, b"b", b"a", 1, 0, group)
    assert fixture.pool.by_hash == ({b"a": blocks[0], b"b": blocks[1]}, {b"a": blocks[2], b"b": blocks[3]})
    assert fixture.pool.num_cached == 4
    view = fixture.view
    assert [view.group(block_id) for block_id in blocks] == [0, 0, 1, 1]
    assert [view.parent(block_id) for block_id in blocks] == [None, blocks[0], None, blocks[2]]
    assert [view.num_children(block_id) for block_id in blocks] == [1, 0, 1, 0]
    fixture.pool.mark_end(b"b")
    assert [view.ends_sequence(block_id) for block_id in blocks] == [False, True, False, True]
    fixture.pool.uncache([blocks[3]])
    assert [view.num_children(block_id) for block_id in blocks[:3]] == [1, 0, 0]


def test_a_block_that_one_group_gives_up_serves_any_other() -> None:
    fixture = Fixture(2, num_groups=2)
    for group in (0, 1, 0):
        (block_id,) = fixture.pool.allocate(1) or ()
        assert fixture.pool.cache(block_id, b"a", None, 0, 0, group)
        assert fixture.view.group(block_id) == group
        fixture.pool.release([block_id])
    assert fixture.pool.by_hash == ({b"a": 1}, {})
