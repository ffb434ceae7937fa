"""What every eviction policy must keep to, whatever its order."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable

import pytest
from vcore_policies.eviction import plugin

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.kv_cache import KVCacheManager, RequestBlocks
from vcore.plugins import EvictionPolicySpec

SPECS = list(plugin.vcore_eviction_policies())
BLOCK_SIZE = 2

Make = Callable[[EvictionContext], EvictionPolicy]


@pytest.fixture(params=SPECS, ids=lambda spec: spec.name)
def make(request: pytest.FixtureRequest) -> Make:
    """Builds the policy as the core does."""
    spec: EvictionPolicySpec = request.param
    assert isinstance(spec.load, str)
    module, _, attribute = spec.load.partition(":")
    load = getattr(importlib.import_module(module), attribute)

    def build(context: EvictionContext) -> EvictionPolicy:
        policy = load(options=None, context=context)
        assert isinstance(policy, EvictionPolicy)
        return policy

    return build


class Harness:
    """A cache in strict mode, where any wrong answer raises."""

    def __init__(self, make: Make, num_blocks: int) -> None:
        def keep(context: EvictionContext) -> EvictionPolicy:
            self.policy = make(context)
            return self.policy

        self.kv = KVCacheManager(num_blocks, BLOCK_SIZE, keep, eviction_name="under test", strict=True)
        self.pool = self.kv.pool

    def request(self, tokens: list[int]) -> RequestBlocks | None:
        """A request that computes `tokens` in one step, or None if it finds no room."""
        blocks = self.kv.open((), 0)
        match = self.kv.find_prefix(blocks, tokens)
        count = self.kv.needs.num_columns(len(tokens)) - match.num_columns
        if count + match.num_unused[0] > self.pool.num_available:
            return None
        self.kv.admit(blocks, match, count)
        self.kv.publish(blocks, tokens, len(tokens))
        self.kv.end_step()
        return blocks

    @property
    def unused(self) -> set[int]:
        return {block_id for block_id in self.pool.cached_blocks() if self.pool.ref_counts[block_id] == 0}

    def check_picks(self) -> None:
        """Every count that may be asked gives so many different unused blocks, and asking changes nothing."""
        unused = self.unused
        for count in {1, len(unused) // 2, len(unused)} - {0}:
            if count > len(unused):
                continue
            picked = list(self.policy.pick_victims(count))
            assert len(picked) == len(set(picked)) == count
            assert set(picked) <= unused
            assert list(self.policy.pick_victims(count)) == picked


def test_an_empty_cache_needs_no_victims(make: Make) -> None:
    harness = Harness(make, 4)
    assert list(harness.policy.pick_victims(0)) == []


def test_random_lives_give_only_right_answers(make: Make) -> None:
    rng = random.Random(7)
    harness = Harness(make, 24)
    live: list[RequestBlocks] = []
    for turn in range(1500):
        choice = rng.random()
        if choice < 0.5:
            blocks = harness.request([rng.randrange(2) for _ in range(rng.randint(1, 14))])
            if blocks is not None:
                live.append(blocks)
        elif choice < 0.95 and live:
            harness.kv.release(live.pop(rng.randrange(len(live))), finished=rng.random() < 0.5)
        elif choice < 0.96:
            harness.kv.reset()
            while live:
                harness.kv.release(live.pop(), finished=False)
        if turn % 5 == 0:
            harness.check_picks()
    assert harness.pool.fault is None


def test_a_block_in_use_is_never_picked_however_much_is_needed(make: Make) -> None:
    harness = Harness(make, 8)
    kept = harness.request([1, 1, 1, 1])
    freed = harness.request([2, 2, 2, 2, 2, 2])
    assert kept is not None
    assert freed is not None
    harness.kv.release(freed, finished=True)
    taken = harness.pool.allocate(5)
    assert taken is not None
    assert not set(taken) & set(kept.block_ids[0])
    assert harness.kv.find_prefix(harness.kv.open((), 0), [1, 1, 1, 1, 0]).block_ids == kept.block_ids


def test_withdrawn_blocks_are_forgotten(make: Make) -> None:
    harness = Harness(make, 8)
    blocks = harness.request([1, 1, 1, 1])
    assert blocks is not None
    ids = blocks.held()
    harness.kv.release(blocks, finished=False)
    harness.pool.uncache(ids)
    other = harness.request([2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2])
    assert other is not None
    harness.kv.release(other, finished=False)
    harness.check_picks()


def test_it_starts_afresh_with_every_engine(make: Make) -> None:
    first, second = Harness(make, 8), Harness(make, 8)
    blocks = first.request([1, 1, 1, 1])
    assert blocks is not None
    first.kv.release(blocks, finished=True)
    assert list(second.policy.pick_victims(0)) == []
    assert second.policy is not first.policy
