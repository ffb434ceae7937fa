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
Content = tuple[int, str, tuple[int, ...]]  # the group, the salt, and all tokens up to the end of the block


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
    """Requests come, grow, leave blocks behind their windows, go; steps end, fail; the cache is reset."""

    @initialize(
        num_columns=st.integers(3, 13),
        policy=st.sampled_from([LRUEviction, FIFOEviction, Erratic]),
        windows=st.sampled_from([(None,), (None,), (3,), (1,), (None, 4), (2, 7), (None, 1, 5), (4, None)]),
    )
    def start(self, num_columns: int, policy: type[LRUEviction], windows: tuple[int | None, ...]) -> None:
        def make(context: EvictionContext) -> EvictionPolicy:
            self.auditor = Auditor(policy(options=None, context=context))
            return self.auditor

        self.may_fail = policy is Erratic
        self.windows = windows
        self.kv = KVCacheManager(
            num_columns * len(windows) + 1, SIZE, make, eviction_name="audited", windows=windows, max_chunk=20
        )
        self.owners: list[tuple[RequestBlocks, str, list[int]]] = []
        self.contents: dict[int, Content] = {}
        self.filling: set[int] = set()
        self.last_filled: list[FilledBlock] = []

    @rule(salt=st.sampled_from(["", "s"]), tokens=st.lists(st.integers(0, 1), min_size=1, max_size=12))
    def admit(self, salt: str, tokens: list[int]) -> None:
        blocks = self.kv.open((salt,) if salt else (), 0)
        match = self.kv.find_prefix(blocks, tokens)
        hit = self._longest_hit(salt, tokens, without=self.filling)
        assert match.num_columns == hit
        assert match.next_is_filling == (self._longest_hit(salt, tokens, without=set()) > hit)
        expected = [
            [
                self._find(group, salt, tokens, column) if column in self._seen(group, hit) else 0
                for column in range(hit)
            ]
            for group in range(len(self.windows))
        ]
        assert match.block_ids == expected
        pool = self.kv.pool
        unused = [sum(b != 0 and pool.ref_counts[b] == 0 for b in ids) for ids in expected]
        assert match.num_unused == unused
        needed = self.kv.needs.to_admit(len(tokens), hit, match.num_unused)
        assert needed <= self.kv.needs.most_blocks(len(tokens))
        available = pool.num_available
        if match.next_is_filling or needed > available:
            return
        self.kv.admit(blocks, match, self.kv.needs.num_columns(len(tokens)) - hit)
        assert available - pool.num_available <= needed
        assert [ids[:hit] for ids in blocks.block_ids] == expected
        self._forget_evicted()
        self.owners.append((blocks, salt, tokens))
        self._publish(len(self.owners) - 1)

    @precondition(lambda self: self.owners)
    @rule(data=st.data(), tokens=st.lists(st.integers(0, 1), min_size=1, max_size=4))
    def grow(self, data: st.DataObject, tokens: list[int]) -> None:
        index = data.draw(st.integers(0, len(self.owners) - 1))
        blocks, _, known = self.owners[index]
        count = self.kv.needs.num_columns(len(known) + len(tokens)) - blocks.num_columns
        fresh = self.kv.pool.allocate(count * len(self.windows))
        if fresh is None:
            return
        self._forget_evicted()
        self.kv.grow(blocks, fresh)
        known += tokens
        self._publish(index)

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def leave_behind(self, data: st.DataObject) -> None:
        """All tokens are computed: what the next one does not see is given up."""
        self.end_step()
        blocks, _, known = data.draw(st.sampled_from(self.owners))
        before = [list(ids) for ids in blocks.block_ids]
        if self.kv.windows:
            due = self.kv.next_pass(blocks) <= len(known)
            taken = self.kv.take_passed(blocks, len(known))
            assert bool(taken) == due
            assert self.kv.next_pass(blocks) > len(known)
            assert [before[group][column] for group, column, _ in taken] == [block_id for _, _, block_id in taken]
            self.kv.pool.release([block_id for _, _, block_id in taken][::-1])
        for group, (window, ids) in enumerate(zip(self.windows, blocks.block_ids, strict=True)):
            first = 0 if window is None else max(0, len(known) - window + 1)  # what token len(known) sees
            assert [b == 0 for b in ids] == [(column + 1) * SIZE <= first for column in range(len(ids))]
            assert all(b in (0, old) for b, old in zip(ids, before[group], strict=True))

    @precondition(lambda self: self.owners)
    @rule(data=st.data(), finished=st.booleans())
    def release(self, data: st.DataObject, finished: bool) -> None:
        blocks, _, _ = self.owners.pop(data.draw(st.integers(0, len(self.owners) - 1)))
        self.kv.release(blocks, finished=finished)

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        blocks, salt, known = self.owners.pop(data.draw(st.integers(0, len(self.owners) - 1)))
        self.kv.retract(blocks)
        self.kv.forget(blocks)
        for block_id in blocks.held():
            self.contents.pop(block_id, None)
        for group, ids in enumerate(blocks.block_ids):
            for column in [column for column, block_id in enumerate(ids) if not block_id]:
                self.contents.pop(self._find(group, salt, known, column) or 0, None)
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

    def teardown(self) -> None:
        if hasattr(self, "kv"):
            while self.owners:
                self.kv.release(self.owners.pop()[0], finished=True)
            assert self.kv.pool.num_available == self.kv.pool.num_blocks - 1

    @invariant()
    def ref_counts_equal_owners(self) -> None:
        owners = Counter(block_id for blocks, _, _ in self.owners for block_id in blocks.held())
        pool = self.kv.pool
        assert owners[0] == 0
        assert pool.ref_counts == [owners[block_id] for block_id in range(pool.num_blocks)]
        for block_id, count in owners.items():
            assert count == 1 or block_id in self.contents or pool.hash_of(block_id) is None

    @invariant()
    def every_block_is_in_one_place(self) -> None:
        pool = self.kv.pool
        used = {block_id for blocks, _, _ in self.owners for block_id in blocks.held()}
        free, unused = pool._free, list(pool._unused)
        assert sorted([*free, *unused, *used]) == list(range(1, pool.num_blocks))
        assert pool.num_available == len(free) + len(unused)

    @invariant()
    def the_cache_holds_what_the_oracle_holds(self) -> None:
        pool = self.kv.pool
        assert sorted(pool.cached_blocks()) == sorted(self.contents)
        assert pool.num_cached == len(self.contents)
        for group, by_hash in enumerate(pool.by_hash):
            assert set(by_hash.values()) == {b for b, content in self.contents.items() if content[0] == group}
            for block_hash, block_id in by_hash.items():
                assert pool.hash_of(block_id) == block_hash

    @invariant()
    def the_view_is_right(self) -> None:
        seen = PoolView(self.kv.pool)
        for block_id, (group, salt, tokens) in self.contents.items():
            alike = [(b, t) for b, (g, s, t) in self.contents.items() if (g, s) == (group, salt)]
            parents = [b for b, t in alike if tokens[:-SIZE] == t]
            assert seen.num_children(block_id) == sum(t[:-SIZE] == tokens for _, t in alike)
            assert seen.parent(block_id) == (parents[0] if parents else None)
            assert seen.depth(block_id) == len(tokens) // SIZE - 1
            assert seen.group(block_id) == group

    @invariant()
    def the_policy_knows_every_cached_block(self) -> None:
        if self.kv.pool.fault is None:
            pending = set(self.kv.pool._inserted)
            assert self.auditor.used | self.auditor.unused == set(self.contents) - pending
            assert self.auditor.unused == set(self.kv.pool._unused)
        else:
            assert self.may_fail, self.kv.pool.fault

    def _find(self, group: int, salt: str, tokens: list[int], column: int) -> int | None:
        content = (group, salt, tuple(tokens[: (column + 1) * SIZE]))
        return next((block_id for block_id, other in self.contents.items() if other == content), None)

    def _seen(self, group: int, hit: int) -> set[int]:
        """Columns of a hit that its group needs: those of positions that the first token after it sees."""
        window, token = self.windows[group], hit * SIZE
        first = 0 if window is None else max(0, token - window + 1)
        return {position // SIZE for position in range(first, token)}

    def _longest_hit(self, salt: str, tokens: list[int], without: set[int]) -> int:
        """By trying: the most columns that every group has, and that leave a token to compute."""
        there = [
            {
                column
                for column in range(len(tokens) // SIZE)
                if self._find(group, salt, tokens, column) not in {None, *without}
            }
            for group in range(len(self.windows))
        ]
        hits = [
            hit
            for hit in range((len(tokens) - 1) // SIZE + 1)
            if all(self._seen(group, hit) <= columns for group, columns in enumerate(there))
        ]
        return max(hits)

    def _publish(self, index: int) -> None:
        blocks, salt, known = self.owners[index]
        start = blocks.num_published
        self.kv.publish(blocks, known, len(known))
        for group, ids in enumerate(blocks.block_ids):
            for column in range(start, len(known) // SIZE):
                if ids[column] and self._find(group, salt, known, column) is None:
                    self.contents[ids[column]] = (group, salt, tuple(known[: (column + 1) * SIZE]))
                    self.filling.add(ids[column])

    def _forget_evicted(self) -> None:
        """Which block goes is the policy's choice; that it was unused, the other invariants see."""
        cached = set(self.kv.pool.cached_blocks())
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
    run(max_examples=120, steps=50)


@pytest.mark.soak
def test_random_lives_for_long() -> None:
    run(max_examples=2000, steps=100)
