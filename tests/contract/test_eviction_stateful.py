"""Any life that a cache can have, found by hypothesis, for every eviction policy; with and without a window."""

from __future__ import annotations

import importlib

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from vcore_policies.eviction import plugin

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.kv_cache import KVCacheManager, RequestBlocks
from vcore.plugins import EvictionPolicySpec

SPECS = list(plugin.vcore_eviction_policies())
BLOCK_SIZE = 2
NUM_BLOCKS = 14


class CacheLife(RuleBasedStateMachine):
    """Requests come, grow, fail and go; after each event the policy's answers are right, and asking changes nothing."""

    spec: EvictionPolicySpec
    windows: tuple[int | None, ...]

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.live: list[tuple[RequestBlocks, list[int]]] = []
        self.kv = KVCacheManager(
            NUM_BLOCKS,
            BLOCK_SIZE,
            self.make,
            eviction_name=self.spec.name,
            windows=self.windows,
            strict=True,  # any wrong answer raises
        )
        self.pool = self.kv.pool

    def make(self, context: EvictionContext) -> EvictionPolicy:
        assert isinstance(self.spec.load, str)
        module, _, attribute = self.spec.load.partition(":")
        context = EvictionContext(
            view=context.view, num_blocks=context.num_blocks, block_size=context.block_size, clock=lambda: self.now
        )
        policy = getattr(importlib.import_module(module), attribute)(options=None, context=context)
        assert isinstance(policy, EvictionPolicy)
        self.policy = policy
        return policy

    @rule(
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=11),
        priority=st.integers(-1, 1),
        ttl=st.none() | st.floats(0.5, 20.0),
    )
    def come(self, tokens: list[int], priority: int, ttl: float | None) -> None:
        blocks = self.kv.open((), priority, ttl)
        match = self.kv.find_prefix(blocks, tokens)
        count = self.kv.needs.num_columns(len(tokens)) - match.num_columns
        if count * self.kv.num_groups + sum(match.num_unused) > self.pool.num_available:
            return
        self.kv.admit(blocks, match, count)
        self.kv.publish(blocks, tokens, len(tokens))
        self.kv.end_step()
        self.live.append((blocks, tokens))

    @rule(data=st.data(), finished=st.booleans())
    def go(self, data: st.DataObject, finished: bool) -> None:
        if self.live:
            blocks, _ = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)))
            self.kv.release(blocks, finished=finished)

    @rule(data=st.data())
    def a_window_passes(self, data: st.DataObject) -> None:
        if self.live and self.kv.windows:
            blocks, tokens = data.draw(st.sampled_from(self.live))
            self.pool.release([block_id for _, _, block_id in self.kv.take_passed(blocks, len(tokens))])

    @rule(data=st.data())
    def a_step_fails(self, data: st.DataObject) -> None:
        if self.live:
            self.kv.forget(data.draw(st.sampled_from(self.live))[0])

    @rule()
    def start_over(self) -> None:
        self.kv.reset()
        while self.live:
            self.kv.release(self.live.pop()[0], finished=False)

    @rule(seconds=st.floats(0.0, 10.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_answers_are_right(self) -> None:
        unused = {block_id for block_id in self.pool.cached_blocks() if not self.pool.ref_counts[block_id]}
        for count in sorted({1, len(unused) // 2, len(unused)} - {0}):
            if count > len(unused):
                continue
            picked = list(self.policy.pick_victims(count))
            assert len(picked) == len(set(picked)) == count
            assert set(picked) <= unused
            assert list(self.policy.pick_victims(count)) == picked


@pytest.mark.parametrize("windows", [(None,), (None, 2)], ids=["one group", "with a window"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_life_gives_only_right_answers(spec: EvictionPolicySpec, windows: tuple[int | None, ...]) -> None:
    machine = type("Life", (CacheLife,), {"spec": spec, "windows": windows})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=15, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
