"""The cache against a naive oracle, over random lives of requests, with good and hostile eviction policies."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from vcore_policies.eviction.fifo import FIFOEviction
from vcore_policies.eviction.lru import LRUEviction

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.kv_cache import FilledBlock, KVCacheManager, PoolView, RequestBlocks

SIZE = 2
Content = tuple[str, tuple[int, ...]]  # the salt, and all tokens up to the end of the block


class Erratic(LRUEviction):
    """Answers well for a while, then nonsense."""

    def __init__(self, *, options: None, context: EvictionContext) -> None:
        super().__init__(options=options, context=context)
        self._random = random.Random(context.num_blocks)

    def pick_victims(self, count: int) -> list[int]:
        victims = super().pick_victims(count)
        return self._random.choice([victims, victims, victims, [0] * count, victims[1:], [10**6] * count])


class Auditor(EvictionPolicy):
    """Passes everything on to a policy, after it has seen that the core keeps to the contract."""

    def __init__(self, policy: EvictionPolicy) -> None:
        self.policy = policy
        self.used: set[int] = set()
        self.unused: set[int] = set()

    def on_insert(self, block_ids: Sequence[int]) -> None:
        assert not set(block_ids) & (self.used | self.unused)
        self.used |= set(block_ids)
        self.policy.on_insert(block_ids)

    def on_hit(self, block_ids: Sequence[int]) -> None:
        assert set(block_ids) <= self.used | self.unused
        self.used |= set(block_ids)
        self.unused -= set(block_ids)
        self.policy.on_hit(block_ids)

    def on_free(self, block_ids: Sequence[int]) -> None:
        assert set(block_ids) <= self.used
        self.used -= set(block_ids)
        self.unused |= set(block_ids)
        self.policy.on_free(block_ids)

    def on_evict(self, block_ids: Sequence[int]) -> None:
        assert set(block_ids) <= self.used | self.unused
        self.used -= set(block_ids)
        self.unused -= set(block_ids)
        self.policy.on_evict(block_ids)

    def pick_victims(self, count: int) -> Sequence[int]:
        return self.policy.pick_victims(count)


class CacheMachine(RuleBasedStateMachine):
    """Requests come, grow, leave; steps end, fail; the cache is reset."""

    @initialize(num_blocks=st.integers(4, 14), policy=st.sampled_from([LRUEviction, FIFOEviction, Erratic]))
    def start(self, num_blocks: int, policy: type[LRUEviction]) -> None:
        def make(context: EvictionContext) -> EvictionPolicy:
            self.auditor = Auditor(policy(options=None, context=context))
            return self.auditor

        self.may_fail = policy is Erratic
        self.kv = KVCacheManager(num_blocks, SIZE, make, eviction_name="audited")
        self.owners: list[tuple[RequestBlocks, str, list[int]]] = []
        self.contents: dict[int, Content] = {}
        self.filling: set[int] = set()
        self.last_filled: list[FilledBlock] = []

    @rule(salt=st.sampled_from(["", "s"]), tokens=st.lists(st.integers(0, 1), min_size=1, max_size=12))
    def admit(self, salt: str, tokens: list[int]) -> None:
        blocks = self.kv.open((salt,) if salt else (), 0)
        match = self.kv.find_prefix(blocks, tokens)
        expected: list[int] = []
        blocked = False
        by_content = {content: block_id for block_id, content in self.contents.items()}
        for index in range((len(tokens) - 1) // SIZE):
            block_id = by_content.get((salt, tuple(tokens[: (index + 1) * SIZE])))
            if block_id is None or block_id in self.filling:
                blocked = block_id is not None
                break
            expected.append(block_id)
        assert match.block_ids == expected
        assert match.next_is_filling == blocked
        count = self.kv.num_blocks_for(len(tokens)) - len(expected)
        if blocked or count + match.num_unused > self.kv.pool.num_available:
            return
        self.kv.admit(blocks, match, count)
        assert blocks.block_ids[: len(expected)] == expected
        self._forget_evicted()
        self.owners.append((blocks, salt, tokens))
        self._publish(len(self.owners) - 1)

    @precondition(lambda self: self.owners)
    @rule(data=st.data(), tokens=st.lists(st.integers(0, 1), min_size=1, max_size=4))
    def grow(self, data: st.DataObject, tokens: list[int]) -> None:
        index = data.draw(st.integers(0, len(self.owners) - 1))
        blocks, _, known = self.owners[index]
        fresh = self.kv.pool.allocate(self.kv.num_blocks_for(len(known) + len(tokens)) - len(blocks.block_ids))
        if fresh is None:
            return
        self._forget_evicted()
        blocks.block_ids += fresh
        known += tokens
        self._publish(index)

    @precondition(lambda self: self.owners)
    @rule(data=st.data(), finished=st.booleans())
    def release(self, data: st.DataObject, finished: bool) -> None:
        blocks, _, _ = self.owners.pop(data.draw(st.integers(0, len(self.owners) - 1)))
        self.kv.release(blocks, finished=finished)

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        blocks, _, _ = self.owners.pop(data.draw(st.integers(0, len(self.owners) - 1)))
        self.kv.retract(blocks)
        self.kv.forget(blocks)
        for block_id in blocks.block_ids:
            self.contents.pop(block_id, None)
        self.kv.release(blocks, finished=True)

    @rule()
    def end_step(self) -> None:
        self.last_filled = self.kv.end_step()
        self.filling.clear()

    @rule()
    def fail_step(self) -> None:
        self.kv.withdraw(self.last_filled)
        for block in self.last_filled:
            if self.kv.pool.hash_of(block.block_id) is None:
                self.contents.pop(block.block_id, None)
        self.last_filled = []

    @rule()
    def reset(self) -> None:
        self.kv.reset()
        self.contents.clear()
        self.filling.clear()
        self.last_filled = []
        # As the scheduler has it: what rests on forgotten content is not published.
        while self.owners:
            self.kv.release(self.owners.pop()[0], finished=False)

    @invariant()
    def ref_counts_equal_owners(self) -> None:
        owners = Counter(block_id for blocks, _, _ in self.owners for block_id in blocks.block_ids)
        pool = self.kv.pool
        assert owners[0] == 0
        assert pool.ref_counts == [owners[block_id] for block_id in range(pool.num_blocks)]
        for block_id, count in owners.items():
            assert count == 1 or block_id in self.contents or pool.hash_of(block_id) is None

    @invariant()
    def every_block_is_in_one_place(self) -> None:
        pool = self.kv.pool
        used = {block_id for blocks, _, _ in self.owners for block_id in blocks.block_ids}
        free, unused = pool._free, list(pool._unused)
        assert sorted([*free, *unused, *used]) == list(range(1, pool.num_blocks))
        assert pool.num_available == len(free) + len(unused)

    @invariant()
    def the_cache_holds_what_the_oracle_holds(self) -> None:
        pool = self.kv.pool
        assert set(pool.by_hash.values()) == set(self.contents)
        for block_hash, block_id in pool.by_hash.items():
            assert pool.hash_of(block_id) == block_hash

    @invariant()
    def the_view_is_right(self) -> None:
        seen = PoolView(self.kv.pool)
        for block_id, (salt, tokens) in self.contents.items():
            content = self.contents
            children = [b for b, (s, t) in content.items() if s == salt and t[:-SIZE] == tokens]
            parents = [b for b, (s, t) in content.items() if s == salt and tokens[:-SIZE] == t]
            assert seen.num_children(block_id) == len(children)
            assert seen.parent(block_id) == (parents[0] if parents else None)
            assert seen.depth(block_id) == len(tokens) // SIZE - 1

    @invariant()
    def the_policy_knows_every_cached_block(self) -> None:
        if self.kv.pool.fault is None:
            pending = set(self.kv.pool._inserted)
            assert self.auditor.used | self.auditor.unused == set(self.contents) - pending
            assert self.auditor.unused == set(self.kv.pool._unused)
        else:
            assert self.may_fail, self.kv.pool.fault

    def _publish(self, index: int) -> None:
        blocks, salt, known = self.owners[index]
        start = blocks.num_published
        self.kv.publish(blocks, known, len(known))
        for i in range(start, len(known) // SIZE):
            content = (salt, tuple(known[: (i + 1) * SIZE]))
            if content not in self.contents.values():
                self.contents[blocks.block_ids[i]] = content
                self.filling.add(blocks.block_ids[i])

    def _forget_evicted(self) -> None:
        """Which block goes is the policy's choice; that it was unused, the other invariants see."""
        cached = set(self.kv.pool.by_hash.values())
        for block_id in set(self.contents) - cached:
            del self.contents[block_id]


def run(max_examples: int, steps: int) -> None:
    run_state_machine_as_test(
        CacheMachine,
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_random_lives() -> None:
    run(max_examples=60, steps=50)


@pytest.mark.soak
def test_random_lives_for_long() -> None:
    run(max_examples=2000, steps=100)
