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
    assert isinstance(spec.load, str)
    module, _, attribute = spec.load.partition(":")
    load = getattr(importlib.import_module(module), attribute)

    def build() -> SchedulingPolicy:
        context = SchedulingContext(max_num_seqs=4, max_num_batched_tokens=16, block_size=4, num_blocks=20)
        policy = load(options=None, context=context)
        assert isinstance(policy, SchedulingPolicy)
        return policy

    return build


SHAPES: dict[str, dict[str, object]] = {
    "roomy": {"num_blocks": 400, "max_num_seqs": 16, "max_num_batched_tokens": 200},
    "one at a time": {"max_num_seqs": 1},
    "few blocks": {"num_blocks": 12, "max_num_seqs": 6},
    "few tokens": {"max_num_batched_tokens": 3, "max_num_seqs": 6},
    "few of all": {"num_blocks": 12, "max_num_batched_tokens": 5, "max_num_seqs": 3, "prefix_caching": False},
    "whole prompts": {"num_blocks": 14, "chunked_prefill": False, "max_num_batched_tokens": 30},
    "in flight": {"num_blocks": 14, "depth": 2},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_request_ends_with_what_it_gives_alone(make: Make, shape: str) -> None:
    rng = random.Random(shape)
    engine = SimulatedEngine(policy=make(), strict=True, **SHAPES[shape])  # type: ignore[arg-type]
    for _ in range(60):
        if rng.random() < 0.5:
            prompt = [rng.randrange(3) for _ in range(rng.randint(1, 25))]
            engine.add(prompt, rng.randint(1, 15), priority=rng.randint(-2, 2), eos=(7,))
        if rng.random() < 0.1:
            engine.scheduler.abort([rng.choice(sorted(engine.requests) or ["none"])])
        engine.step()
    engine.run()
    engine.check_outputs()
    engine.check_idle()
    assert set(engine.finished) == set(engine.requests)
    assert engine.scheduler.faults() == ()


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
        for i, priority in enumerate((2, 0, 1, 0)):
            engine.add([i], 2, priority=priority)
        engine.run()
        orders.append([new.request_id for output in engine.schedules for new in output.new_rows])
    assert orders[0] == orders[1]
    assert sorted(set(orders[0])) == ["r0", "r1", "r2", "r3"]
