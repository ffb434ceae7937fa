"""Every scheduling policy is held to the starvation bound that it states, over random lives of the real scheduler."""

from __future__ import annotations

import importlib
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from simulated_engine import SimulatedEngine
from vcore_policies.scheduling import plugin
from vcore_policies.scheduling.fair_share import FairSharePolicy
from vcore_policies.scheduling.fcfs import FCFSPolicy
from vcore_policies.scheduling.options import FairShareOptions

from vcore.errors import RequestTooLargeError
from vcore.interfaces.scheduling import SchedulingContext, SchedulingPolicy
from vcore.scheduler.waiting_queue import WaitingQueue
from vcore.testing import StarvationWatch

CONTEXT = SchedulingContext(max_num_seqs=3, max_num_batched_tokens=16, block_size=4, num_blocks=30)

OPTIONS: dict[str, list[dict[str, object]]] = {
    "fcfs": [{}],
    "priority": [{"ageing_s": 5.0, "max_level": 2}],
    "shortest_job": [{"patience": 3}],
    "shortest_remaining": [{"patience": 2, "displace_ratio": 1.0, "max_displacements": 1}],
    "earliest_deadline": [{"patience": 2, "ttft_target_s": 8.0}],
    "fair_share": [{"patience": 3}],
    "prefix_aware": [{"patience": 2}, {"patience": 3, "order": "depth_first"}],
    "multilevel_feedback": [{"patience": 2, "quantum": 10.0, "max_displacements": 0}],
}
"""Of each policy, bounds so tight that random lives come up against them."""


def make(name: str, **values: object) -> SchedulingPolicy:
    """As the core makes it."""
    (spec,) = (spec for spec in plugin.vcore_scheduling_policies() if spec.name == name)
    options = None
    if isinstance(spec.options, str):
        module, _, attribute = spec.options.partition(":")
        options = getattr(importlib.import_module(module), attribute)(**values)
    assert isinstance(spec.load, str)
    module, _, attribute = spec.load.partition(":")
    policy = getattr(importlib.import_module(module), attribute)(options=options, context=CONTEXT)
    assert isinstance(policy, SchedulingPolicy)
    return policy


class BoundMachine(RuleBasedStateMachine):
    """Requests of all kinds come, are computed and aborted; time passes."""

    name = ""
    values: dict[str, object] = {}

    @initialize(
        num_blocks=st.sampled_from([16, 30, 300]),
        max_num_seqs=st.sampled_from([1, 3]),
        depth=st.sampled_from([1, 1, 2]),
        caching=st.booleans(),
    )
    def start(self, num_blocks: int, max_num_seqs: int, depth: int, caching: bool) -> None:
        self.policy = make(self.name, **self.values)
        self.engine = SimulatedEngine(
            policy=self.policy,
            strict=True,
            depth=depth,
            vocab=12,
            num_blocks=num_blocks,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=16,
            max_model_len=60,
            prefix_caching=caching,
        )
        self.num_prompts = 0
        self.watch = StarvationWatch(self.engine)

    @rule(
        size=st.integers(1, 20),
        max_tokens=st.integers(1, 10),
        shared=st.integers(0, 2),
        priority=st.integers(-3, 3),
        tenant=st.sampled_from([None, "a", "b"]),
        ttft_s=st.sampled_from([None, 1.0, 30.0]),
        expected=st.sampled_from([None, 1, 40]),
        copies=st.sampled_from([1, 2, 4]),
    )
    def add(
        self,
        size: int,
        max_tokens: int,
        shared: int,
        priority: int,
        tenant: str | None,
        ttft_s: float | None,
        expected: int | None,
        copies: int,
    ) -> None:
        for _ in range(copies):
            self.num_prompts += 1
            prompt = [shared] * (4 * (size // 8)) + [3 + self.num_prompts] + [0] * (size % 8)
            extra = {"priority": priority, "tenant": tenant, "ttft_target_s": ttft_s, "expected_tokens": expected}
            try:
                self.engine.add(prompt, max_tokens, **extra)
            except RequestTooLargeError:
                return

    @rule(seconds=st.sampled_from([1.0, 7.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.engine.now += seconds

    @rule(count=st.integers(1, 4))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.watch.step()

    @precondition(lambda self: self.engine.requests.keys() - self.engine.finished.keys())
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        live = sorted(self.engine.requests.keys() - self.engine.finished.keys())
        self.engine.scheduler.abort([data.draw(st.sampled_from(live))])

    @invariant()
    def nobody_is_displaced_too_often(self) -> None:
        most = self.values.get("max_displacements")
        if hasattr(self, "engine") and isinstance(most, int) and self.engine.settings.num_blocks == 300:
            live = self.engine.scheduler._lifecycle.requests.values()
            assert all(request.num_preemptions <= most + 1 for request in live)

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.engine.run()
            self.engine.check_outputs()
            self.engine.check_idle()
            assert self.engine.scheduler.faults() == ()


CASES = [(name, values) for name, cases in OPTIONS.items() for values in cases]


def run(machine: type[RuleBasedStateMachine], max_examples: int, steps: int = 30, *, shrink: bool = True) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max_examples,
            phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def machine(name: str, values: dict[str, object]) -> type[BoundMachine]:
    return type("Machine", (BoundMachine,), {"name": name, "values": values})


@pytest.mark.parametrize(("name", "values"), CASES, ids=str)
def test_nobody_waits_longer_than_the_policy_states(name: str, values: dict[str, object]) -> None:
    run(machine(name, values), 50)


@pytest.mark.soak
@pytest.mark.parametrize(("name", "values"), CASES, ids=str)
def test_nobody_waits_longer_than_the_policy_states_for_long(name: str, values: dict[str, object]) -> None:
    run(machine(name, values), 600, 80)


@pytest.mark.parametrize("spec", plugin.vcore_scheduling_policies(), ids=lambda spec: spec.name)
def test_every_policy_states_a_bound_by_default(spec) -> None:  # type: ignore[no-untyped-def]
    assert OPTIONS[spec.name]
    policy = make(spec.name)
    assert policy.patience is not None or policy.max_overtaking_s is not None
    assert "Starvation bound" in (type(policy).__doc__ or "")


def test_a_policy_that_breaks_its_bound_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FCFSPolicy, "waiting_key", lambda self, request: -request.arrival_index)
    with pytest.raises(AssertionError):
        run(machine("fcfs", {}), 60, shrink=False)


@pytest.mark.parametrize(("name", "values"), [case for case in CASES if "patience" in case[1]], ids=str)
def test_without_turns_of_the_core_the_bound_does_not_hold(
    name: str, values: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WaitingQueue, "_first_if_due", lambda self: None)
    with pytest.raises(AssertionError, match="passed too often"):
        run(machine(name, values), 150, 50, shrink=False)


# Fair shares


INPUT, OUTPUT = 1.0, 2.0
MAX_PROMPT, MAX_TOKENS, MAX_NUM_SEQS = 16, 10, 3
BOUND = 2 * max(INPUT * MAX_PROMPT, OUTPUT * MAX_TOKENS * MAX_NUM_SEQS)


class FairnessMachine(RuleBasedStateMachine):
    """Tenants that always, or sometimes, have requests waiting."""

    def __init__(self) -> None:
        super().__init__()
        options = FairShareOptions(patience=None, input_weight=INPUT, output_weight=OUTPUT)
        self.engine = SimulatedEngine(
            policy=FairSharePolicy(options=options, context=CONTEXT),
            strict=True,
            vocab=12,
            num_blocks=300,
            max_num_seqs=MAX_NUM_SEQS,
            max_num_batched_tokens=16,
            max_model_len=60,
        )
        self.admitted: Counter[str] = Counter()
        self.since: dict[tuple[str, str], float] = {}
        """Pairs that both have requests waiting, with the difference of what they were served when that began."""

    @rule(
        tenant=st.sampled_from("abc"),
        size=st.integers(1, MAX_PROMPT),
        max_tokens=st.integers(1, MAX_TOKENS),
        copies=st.sampled_from([1, 3, 9]),
    )
    def add(self, tenant: str, size: int, max_tokens: int, copies: int) -> None:
        for _ in range(copies):
            prompt = [1000 + len(self.engine.requests)] * size
            self.engine.add(prompt, max_tokens, tenant=tenant, ignore_eos=True)

    @rule(count=st.integers(1, 12))
    def step(self, count: int) -> None:
        for _ in range(count):
            before = len(self.engine.schedules)
            self.note_waiting()
            self.engine.step()
            for output in self.engine.schedules[before:]:
                for new in output.new_rows:
                    self.admitted[self.tenant(new.request_id)] += new.num_prompt_tokens
            self.check()

    def served(self, tenant: str) -> float:
        generated = sum(len(given) for name, given in self.engine.outputs.items() if self.tenant(name) == tenant)
        return INPUT * self.admitted[tenant] + OUTPUT * generated

    def tenant(self, name: str) -> str:
        tenant = self.engine.requests[name].params.tenant
        assert tenant is not None
        return tenant

    def note_waiting(self) -> None:
        waiting = {self.tenant(r.request_id) for r in self.engine.scheduler._lifecycle.waiting._members.values()}
        for pair in combinations("abc", 2):
            if set(pair) <= waiting:
                self.since.setdefault(pair, self.served(pair[0]) - self.served(pair[1]))
            else:
                self.since.pop(pair, None)

    def check(self) -> None:
        self.note_waiting()
        for (one, other), start in self.since.items():
            gap = self.served(one) - self.served(other) - start
            assert abs(gap) <= BOUND, f"{one} got {gap} more than {other} while both waited"

    def teardown(self) -> None:
        self.engine.run()
        self.engine.check_outputs()


def test_tenants_that_wait_are_served_alike() -> None:
    run(FairnessMachine, 40)


def test_fcfs_does_not_serve_them_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_arrival(self: FairSharePolicy, now: float) -> object:
        for _, view in sorted((v.arrival_index, v) for a in self._accounts.values() for v in a.queue.walk()):
            yield view

    monkeypatch.setattr(FairSharePolicy, "walk", by_arrival)
    with pytest.raises(AssertionError):
        run(FairnessMachine, 60, 50, shrink=False)
