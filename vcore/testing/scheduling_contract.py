"""`SchedulingPolicyContract`: what every scheduling policy must pass, as tests that a class inherits.

    class TestShortestFirst(SchedulingPolicyContract):
        policy = "shortest_first"
        tight_options = {"patience": 3}

Each class is one case: the policy of that name, as an engine finds it, in the real scheduler over a worker without a
model. Needs pytest.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from vcore.errors import RequestTooLargeError
from vcore.interfaces.scheduling import QueueingPolicy, SchedulingPolicy
from vcore.plugins import PluginKind
from vcore.testing.cost_meter import CostMeter
from vcore.testing.kept import count_kept
from vcore.testing.policy_case import PolicyCase
from vcore.testing.simulated_engine import SimulatedEngine
from vcore.testing.starvation_watch import StarvationWatch

__all__ = ["SchedulingPolicyContract", "random_hints"]

Create = Callable[..., SchedulingPolicy]

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "roomy": {"num_blocks": 400, "max_num_seqs": 16, "max_num_batched_tokens": 200},
    "one at a time": {"max_num_seqs": 1},
    "few blocks": {"num_blocks": 12, "max_num_seqs": 6},
    "few tokens": {"max_num_batched_tokens": 3, "max_num_seqs": 6},
    "few of all": {"num_blocks": 12, "max_num_batched_tokens": 5, "max_num_seqs": 3, "prefix_caching": False},
    "whole prompts": {"num_blocks": 14, "chunked_prefill": False, "max_num_batched_tokens": 30},
    "in flight": {"num_blocks": 14, "depth": 2},
    "windows": {"windows": (None, 6), "num_blocks": 40, "max_num_seqs": 3},
}

_CALLS: Sequence[str] = [
    name
    for name in (*vars(SchedulingPolicy), *vars(QueueingPolicy))
    if not name.startswith("_") and callable(getattr(QueueingPolicy, name))
]
_NUM_LIVES = 25
_FEW, _MANY = 200, 3200


def random_hints(rng: random.Random) -> dict[str, Any]:
    """What a request may say of itself, or not."""
    said: dict[str, Any] = {
        "tenant": rng.choice("abc"),
        "ttft_target_s": rng.choice([0.001, 5.0, 600.0]),
        "itl_target_s": rng.choice([0.001, 5.0]),
        "expected_tokens": rng.randint(1, 100),
        "priority": rng.choice([-(2**31), -1, 0, 1, 2**31]),
    }
    return {name: value for name, value in said.items() if rng.random() < 0.6}


class SchedulingPolicyContract(PolicyCase):
    """One case. Subclass it in a test module, under a name that begins with ``Test``."""

    kind = PluginKind.SCHEDULING_POLICY
    states_a_bound: ClassVar[bool] = True
    """Whether it states how long one may wait: `patience` or `max_overtaking_s`. One that does not may starve."""

    @pytest.mark.parametrize("shape", SHAPES)
    def test_every_request_ends_with_what_it_gives_alone(self, create: Create, shape: str) -> None:
        """In random lives, whatever is short: rows, blocks, tokens."""
        rng = random.Random(shape)
        engine = SimulatedEngine(make_policy=create, strict=True, **SHAPES[shape])
        for _ in range(60):
            if rng.random() < 0.5:
                prompt = [rng.randrange(3) for _ in range(rng.randint(1, 25))]
                engine.add(prompt, rng.randint(1, 15), eos=(7,), **random_hints(rng))
            if rng.random() < 0.1:
                engine.scheduler.abort([rng.choice(sorted(engine.requests) or ["none"])])
            engine.step()
        _check_end(engine)

    def test_steps_that_fail_and_caches_that_are_reset_lose_nobody(self, create: Create) -> None:
        """The requests of such a step end with an error, and the others go on."""
        rng = random.Random(3)
        engine = SimulatedEngine(
            make_policy=create, num_blocks=14, max_num_seqs=3, max_num_batched_tokens=12, strict=True
        )
        for turn in range(40):
            engine.add([rng.randrange(3) for _ in range(rng.randint(1, 20))], rng.randint(1, 12), **random_hints(rng))
            engine.step()
            if turn % 9 == 8:
                engine.fail_step(launched=bool(turn % 2))
                engine.scheduler.reset_prefix_cache()
        _check_end(engine)

    def test_nothing_is_kept_of_requests_that_ended(self, create: Create) -> None:
        """Ended or aborted, running or waiting; what is learned of kinds of requests has an end."""
        engine = SimulatedEngine(make_policy=create, num_blocks=30, max_num_seqs=3, strict=True)
        kept = []
        for count in (150, 600):
            for index in range(count):
                engine.add([index] * 9, 4, tenant=f"t{index % 7}", ttft_target_s=5.0, priority=index % 3)
                if index % 3 == 0:
                    engine.step()
                if index % 11 == 0:
                    engine.scheduler.abort([f"r{len(engine.requests) - 1}"])
            engine.run()
            kept.append(count_kept(engine.policy))
        engine.check_idle()
        assert kept[1] - kept[0] < 300, f"it holds {kept[1] - kept[0]} references more after 600 requests more"

    def test_there_is_no_preemption_while_there_is_room(self, create: Create) -> None:
        """`should_displace` is for when there is none."""
        engine = SimulatedEngine(make_policy=create, num_blocks=400, max_num_seqs=20, strict=True)
        for index in range(20):
            engine.add(range(index, index + 9), 12, priority=-index)
            engine.step()
        engine.run()
        assert engine.scheduler.stats().preemptions == 0

    def test_it_starts_afresh_with_every_engine(self, create: Create) -> None:
        """The same requests are served in the same order: no state in the class or the module."""
        orders = []
        for _ in range(2):
            engine = SimulatedEngine(make_policy=create, max_num_seqs=1, strict=True)
            rng = random.Random(11)
            for index in range(4):
                engine.add([index] * (4 - index), 2, **random_hints(rng))
            engine.run()
            orders.append([new.request_id for output in engine.schedules for new in output.new_rows])
        assert orders[0] == orders[1], f"the same requests ran in the order {orders[0]} and in the order {orders[1]}"
        assert sorted(set(orders[0])) == ["r0", "r1", "r2", "r3"]

    def test_a_bound_is_stated(self, create: Create) -> None:
        """Unless the case says that there is none."""
        policy = SimulatedEngine(make_policy=create).policy
        stated = policy.patience is not None or policy.max_overtaking_s is not None
        assert stated == self.states_a_bound, (
            f"patience is {policy.patience}, max_overtaking_s {policy.max_overtaking_s}, and states_a_bound "
            f"{self.states_a_bound}"
        )

    def test_nobody_waits_longer_than_it_states(self, create: Create) -> None:
        """Random lives with `tight_options`: requests of all kinds come, are computed and aborted; time passes."""
        for seed in range(_NUM_LIVES):
            try:
                self._live(create, random.Random(seed))
            except AssertionError as error:
                error.add_note(f"in the random life of seed {seed}")
                raise

    def test_a_step_costs_no_more_with_more_who_wait(self, create: Create) -> None:
        """Nothing looks at all who wait: a step's work and memory grow with the logarithm of their number at most."""
        few, many = self._step_cost(create, _FEW), self._step_cost(create, _MANY)
        for what, less, more in zip(("instructions", "bytes"), few, many, strict=True):
            assert more <= 3 * less + 500, (
                f"a step takes {less:.0f} {what} with {_FEW} waiting and {more:.0f} with {_MANY}; keep them in a heap"
            )

    def _live(self, create: Create, rng: random.Random) -> None:
        engine = SimulatedEngine(
            make_policy=lambda context: create(context, **self.tight_options),
            strict=True,
            depth=rng.choice([1, 1, 2]),
            vocab=12,
            num_blocks=rng.choice([16, 30, 300]),
            max_num_seqs=rng.choice([1, 3]),
            max_num_batched_tokens=16,
            max_model_len=60,
            prefix_caching=rng.random() < 0.5,
        )
        watch = StarvationWatch(engine)
        for _ in range(40):
            turn = rng.random()
            if turn < 0.4:
                _add_alike(engine, rng)
            elif turn < 0.5:
                engine.now += rng.choice([1.0, 7.0, 40.0])
            elif turn < 0.55:
                engine.scheduler.abort([rng.choice(sorted(engine.requests) or ["none"])])
            else:
                watch.step()
        while engine.scheduler.has_unfinished or engine.in_flight:
            watch.step()
        _check_end(engine)

    def _step_cost(self, create: Create, num_waiting: int) -> tuple[float, float]:
        """Instructions and bytes of a step in which some requests end and as many arrive."""
        rng = random.Random(5)
        engine = SimulatedEngine(make_policy=create, num_blocks=400, max_num_seqs=4, strict=True)

        def add() -> None:
            shared = [rng.randrange(50)] * 8 if rng.random() < 0.5 else []
            prompt = shared + [rng.randrange(50) for _ in range(rng.randint(1, 8))]
            engine.add(prompt, rng.randint(1, 4), tenant=f"t{rng.randrange(20)}", ttft_target_s=rng.uniform(1.0, 6e5))

        for _ in range(num_waiting):
            add()
        meter = CostMeter(engine.policy, _CALLS)
        for turn in range(40):
            ended = len(engine.finished)
            if turn < 10:
                engine.step()
            else:
                with meter.watch():
                    engine.step()
                    for _ in range(len(engine.finished) - ended):
                        add()
        return meter.instructions, meter.num_bytes


def _add_alike(engine: SimulatedEngine, rng: random.Random) -> None:
    """Up to four requests that differ in their prompts alone."""
    size, max_tokens, shared = rng.randint(1, 20), rng.randint(1, 10), rng.randint(0, 2)
    hints: dict[str, Any] = {
        "priority": rng.randint(-3, 3),
        "tenant": rng.choice([None, "a", "b"]),
        "ttft_target_s": rng.choice([None, 1.0, 30.0]),
        "expected_tokens": rng.choice([None, 1, 40]),
    }
    for _ in range(rng.choice([1, 2, 4])):
        prompt = [shared] * (4 * (size // 8)) + [3 + len(engine.requests)] + [0] * (size % 8)
        try:
            engine.add(prompt, max_tokens, **hints)
        except RequestTooLargeError:
            return


def _check_end(engine: SimulatedEngine) -> None:
    """All requests end as they should, and nothing is left of them."""
    engine.run()
    engine.check_outputs()
    engine.check_idle()
    assert set(engine.finished) == set(engine.requests)
    assert engine.scheduler.faults() == ()
