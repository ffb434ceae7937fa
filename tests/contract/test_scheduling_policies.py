"""What every scheduling policy must keep to, whatever its order: nobody is lost, and nothing is computed wrongly."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from vcore_policies.scheduling import plugin

from vcore.interfaces.scheduling import SchedulingContext, SchedulingPolicy
from vcore.plugins import SchedulingPolicySpec

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "scheduler"))
from simulated_engine import SimulatedEngine  # the path comes first

SPECS = list(plugin.vcore_scheduling_policies())

Make = Callable[[], SchedulingPolicy]


@pytest.fixture(params=SPECS, ids=lambda spec: spec.name)
def make(request: pytest.FixtureRequest) -> Make:
    """Builds the policy as the core does."""
    spec: SchedulingPolicySpec = request.param
    load = imported(spec.load)

    def build() -> SchedulingPolicy:
        context = SchedulingContext(max_num_seqs=4, max_num_batched_tokens=16, block_size=4, num_blocks=20)
        policy = load(options=None if spec.options is None else imported(spec.options)(), context=context)
        assert isinstance(policy, SchedulingPolicy)
        return policy

    return build


def imported(where: object) -> Callable[..., object]:
    assert isinstance(where, str)
    module, _, attribute = where.partition(":")
    return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]


def hints(rng: random.Random) -> dict[str, object]:
    """What a request may say of itself, or not."""
    said = {
        "tenant": rng.choice("abc"),
        "ttft_target_s": rng.choice([0.001, 5.0, 600.0]),
        "itl_target_s": rng.choice([0.001, 5.0]),
        "expected_tokens": rng.randint(1, 100),
        "priority": rng.choice([-(2**31), -1, 0, 1, 2**31]),
    }
    return {name: value for name, value in said.items() if rng.random() < 0.6}


SHAPES: dict[str, dict[str, object]] = {
    "roomy": {"num_blocks": 400, "max_num_seqs": 16, "max_num_batched_tokens": 200},
    "one at a time": {"max_num_seqs": 1},
    "few blocks": {"num_blocks": 12, "max_num_seqs": 6},
    "few tokens": {"max_num_batched_tokens": 3, "max_num_seqs": 6},
    "few of all": {"num_blocks": 12, "max_num_batched_tokens": 5, "max_num_seqs": 3, "prefix_caching": False},
    "whole prompts": {"num_blocks": 14, "chunked_prefill": False, "max_num_batched_tokens": 30},
    "in flight": {"num_blocks": 14, "depth": 2},
    "windows": {"windows": (None, 6), "num_blocks": 40, "max_num_seqs": 3},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_request_ends_with_what_it_gives_alone(make: Make, shape: str) -> None:
    rng = random.Random(shape)
    engine = SimulatedEngine(policy=make(), strict=True, **SHAPES[shape])  # type: ignore[arg-type]
    for _ in range(60):
        if rng.random() < 0.5:
            prompt = [rng.randrange(3) for _ in range(rng.randint(1, 25))]
            engine.add(prompt, rng.randint(1, 15), eos=(7,), **hints(rng))
        if rng.random() < 0.1:
            engine.scheduler.abort([rng.choice(sorted(engine.requests) or ["none"])])
        engine.step()
    engine.run()
    engine.check_outputs()
    engine.check_idle()
    assert set(engine.finished) == set(engine.requests)
    assert engine.scheduler.faults() == ()


def test_steps_that_fail_and_caches_that_are_reset_lose_nobody(make: Make) -> None:
    rng = random.Random(3)
    engine = SimulatedEngine(policy=make(), num_blocks=14, max_num_seqs=3, max_num_batched_tokens=12, strict=True)
    for turn in range(40):
        engine.add([rng.randrange(3) for _ in range(rng.randint(1, 20))], rng.randint(1, 12), **hints(rng))
        engine.step()
        if turn % 9 == 8:
            engine.fail_step(launched=bool(turn % 2))
            engine.scheduler.reset_prefix_cache()
    engine.run()
    engine.check_outputs()
    engine.check_idle()
    assert set(engine.finished) == set(engine.requests)


def test_nothing_is_kept_of_requests_that_ended(make: Make) -> None:
    policy = make()
    engine = SimulatedEngine(policy=policy, num_blocks=30, max_num_seqs=3, strict=True)
    for i in range(300):
        engine.add([i] * 9, 4, tenant=f"t{i % 7}", ttft_target_s=5.0)
        if i % 3 == 0:
            engine.step()
    engine.scheduler.abort(list(engine.requests)[250:])
    engine.run()
    engine.check_idle()
    sizes = {name: len(value) for name, value in vars(policy).items() if isinstance(value, dict | list | set)}
    assert all(size < 100 for size in sizes.values()), sizes


def test_there_is_no_preemption_while_there_is_room(make: Make) -> None:
    engine = SimulatedEngine(policy=make(), num_blocks=400, max_num_seqs=20, strict=True)
    for i in range(20):
        engine.add(range(i, i + 9), 12, priority=-i)
        engine.step()
    engine.run()
    assert engine.scheduler.stats().preemptions == 0


def test_it_starts_afresh_with_every_engine(make: Make) -> None:
    orders = []
    for _ in range(2):
        engine = SimulatedEngine(policy=make(), max_num_seqs=1, strict=True)
        rng = random.Random(11)
        for i in range(4):
            engine.add([i] * (4 - i), 2, **hints(rng))
        engine.run()
        orders.append([new.request_id for output in engine.schedules for new in output.new_rows])
    assert orders[0] == orders[1]
    assert sorted(set(orders[0])) == ["r0", "r1", "r2", "r3"]
