"""Any life that a cache can have, found by hypothesis, for every eviction policy; with and without a window."""

from __future__ import annotations

import importlib

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from vcore_policies.eviction import plugin

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.plugins import EvictionPolicySpec
from vcore.testing import CacheLife

SPECS = list(plugin.vcore_eviction_policies())
NUM_BLOCKS = 14


class LifeMachine(RuleBasedStateMachine):
    """Requests come, grow, fail and go; after each event the policy's answers are right, and asking changes nothing."""

    spec: EvictionPolicySpec
    windows: tuple[int | None, ...]

    def __init__(self) -> None:
        super().__init__()
        self.life = CacheLife(self.make, NUM_BLOCKS, self.windows)

    def make(self, context: EvictionContext) -> EvictionPolicy:
        assert isinstance(self.spec.load, str)
        module, _, attribute = self.spec.load.partition(":")
        policy = getattr(importlib.import_module(module), attribute)(options=None, context=context)
        assert isinstance(policy, EvictionPolicy)
        return policy

    @rule(
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=11),
        priority=st.integers(-1, 1),
        ttl=st.none() | st.floats(0.5, 20.0),
    )
    def come(self, tokens: list[int], priority: int, ttl: float | None) -> None:
        self.life.come(tokens, priority, ttl)

    @rule(data=st.data(), finished=st.booleans())
    def go(self, data: st.DataObject, finished: bool) -> None:
        if self.life.live:
            self.life.go(self.pick(data), finished=finished)

    @rule(data=st.data())
    def a_window_passes(self, data: st.DataObject) -> None:
        if self.life.live:
            self.life.pass_window(self.pick(data))

    @rule(data=st.data())
    def a_step_fails(self, data: st.DataObject) -> None:
        if self.life.live:
            self.life.kv.forget(self.life.live[self.pick(data)][0])

    @rule()
    def start_over(self) -> None:
        self.life.start_over()

    @rule(seconds=st.floats(0.0, 10.0))
    def wait(self, seconds: float) -> None:
        self.life.now += seconds

    def pick(self, data: st.DataObject) -> int:
        return data.draw(st.integers(0, len(self.life.live) - 1))

    @invariant()
    def the_answers_are_right(self) -> None:
        self.life.check()


@pytest.mark.parametrize("windows", [(None,), (None, 2)], ids=["one group", "with a window"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_life_gives_only_right_answers(spec: EvictionPolicySpec, windows: tuple[int | None, ...]) -> None:
    machine = type("Life", (LifeMachine,), {"spec": spec, "windows": windows})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=15, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
