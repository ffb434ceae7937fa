"""`RoutingPolicyContract`: what every routing policy must pass, as tests that a class inherits.

    class TestStickySessions(RoutingPolicyContract):
        policy = "sticky_sessions"

Each class is one case: the policy of that name, as a simulation finds it, before simulated replicas, where any wrong
answer raises. Needs pytest.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NoReturn

import pytest

from vcore.interfaces.routing import ArrivalView, ReplicaView, RoutingContext, RoutingPolicy
from vcore.plugins import PluginKind
from vcore.testing.cost_meter import CostMeter
from vcore.testing.fake_replica import FakeReplica
from vcore.testing.fake_request import FakeRequest
from vcore.testing.kept import count_kept
from vcore.testing.policy_case import PolicyCase
from vcore.testing.simulated_fleet import SimulatedFleet
from vcore.traces import Trace, TraceRequest

__all__ = ["RoutingPolicyContract", "random_traffic"]

Create = Callable[..., RoutingPolicy]

_BLOCK_SIZE = 4
_NUM_LIVES = 6
_FEW, _MANY = 200, 3200


def random_traffic(rng: random.Random, num_requests: int = 60) -> Trace:
    """Bursts and pauses; prompts of up to 40 tokens, many of which begin alike; tenants and priorities."""
    now, requests = 0.0, []
    for number in range(num_requests):
        length = rng.randint(1, 40)
        num_shared = rng.randint(0, -(-length // _BLOCK_SIZE))
        family = 100 * rng.randrange(4)
        ids = [*range(family, family + num_shared)]
        ids += range(1000 * (number + 1), 1000 * (number + 1) + -(-length // _BLOCK_SIZE) - num_shared)
        requests.append(
            TraceRequest(
                arrival_s=now,
                input_length=length,
                output_length=rng.randint(1, 20),
                block_ids=tuple(ids),
                tenant=rng.choice([None, "a", "b"]),
                priority=rng.randint(-1, 1),
            )
        )
        now += rng.choice([0.0, 0.0, 0.01, 0.1, 1.0])
    return Trace("random", "csv", tuple(requests), _BLOCK_SIZE)


class RoutingPolicyContract(PolicyCase):
    """One case. Subclass it in a test module, under a name that begins with ``Test``."""

    kind = PluginKind.ROUTING_POLICY

    @pytest.mark.parametrize("num_replicas", [2, 3, 16])
    def test_every_request_is_sent_somewhere(self, create: Create, num_replicas: int) -> None:
        """Random traffic, in bursts that overload the fleet and with pauses; with `tight_options`, too."""
        for seed in range(_NUM_LIVES):
            options = self.tight_options if seed % 2 else {}
            fleet = SimulatedFleet(_maker(create, **options), num_replicas, seed=seed)
            assert len(fleet.serve(random_traffic(random.Random(seed)))) == 60

    def test_no_state_of_replicas_is_too_much_for_it(self, create: Create) -> None:
        """All idle, all full, all alike, one as no other: each answer is the index of one of them."""
        rng = random.Random(1)
        for num_replicas in (2, 3, 40):
            for options in ({}, self.tight_options):
                policy = create(_context(num_replicas), **options)
                for _ in range(40):
                    replicas = _random_replicas(rng, num_replicas)
                    length = rng.choice([1, 100_000, rng.randint(1, 200)])
                    request = FakeRequest(num_prompt_tokens=length, hashes=(b"a", b"b"))
                    chosen = policy.choose(request, replicas)
                    assert chosen in range(num_replicas), f"it chose {chosen!r} of {num_replicas} replicas"

    def test_it_looks_at_replicas_only_if_it_says_so(self, create: Create) -> None:
        """Where `looks_at_replicas` is False they are shown as they were some time ago."""
        policy = create(_context(3))
        if policy.looks_at_replicas:
            return
        for _ in range(20):
            policy.choose(FakeRequest(), [_Unwatched(), _Unwatched(), _Unwatched()])

    def test_the_same_traffic_is_routed_the_same_way(self, create: Create) -> None:
        """Of one seed, in every fleet: there is no state in the class or the module, and chance goes by the seed."""
        traffic = random_traffic(random.Random(2), 120)
        fleets = [SimulatedFleet(_maker(create), seed=5) for _ in range(2)]
        first, again = (fleet.serve(traffic) for fleet in fleets)
        assert first == again, f"the same requests went to {first} and to {again}"

    def test_what_it_remembers_has_an_end(self, create: Create) -> None:
        """Of prompts that never come again; with `tight_options`."""
        policy, replicas = create(_context(3), **self.tight_options), [FakeReplica() for _ in range(3)]
        kept, number = [], 0
        for count in (1200, 1200):
            for _ in range(count):
                number += 1
                policy.choose(_new_request(number), replicas)
            kept.append(count_kept(policy))
        assert kept[1] - kept[0] < 300, f"it holds {kept[1] - kept[0]} references more after 1,200 requests more"

    def test_a_choice_costs_no_more_after_many_requests(self, create: Create) -> None:
        """A choice's work and memory grow with the logarithm of the requests so far at most."""
        few, many = self._choice_cost(create, _FEW), self._choice_cost(create, _MANY)
        for what, less, more in zip(("instructions", "bytes"), few, many, strict=True):
            assert more <= 3 * less + 500, (
                f"a choice takes {less:.0f} {what} after {_FEW} requests and {more:.0f} after {_MANY}; keep a bounded "
                "table, or look at replicas instead"
            )

    def _choice_cost(self, create: Create, num_before: int) -> tuple[float, float]:
        policy, replicas = create(_context(3)), [FakeReplica(), FakeReplica(num_unfinished=3), FakeReplica(cached=8)]
        for number in range(num_before):
            policy.choose(_new_request(number), replicas)
        meter = CostMeter(policy, ["choose"])
        for number in range(num_before, num_before + 30):
            with meter.watch():
                policy.choose(_new_request(number), replicas)
        return meter.instructions, meter.num_bytes


class _Unwatched:
    """A replica that must not be asked."""

    def _refuse(self) -> NoReturn:
        raise AssertionError("it looks at a replica, but `looks_at_replicas` is False: set it, or do not look")

    @property
    def num_unfinished(self) -> int:
        self._refuse()

    @property
    def num_running(self) -> int:
        self._refuse()

    @property
    def num_free_blocks(self) -> int:
        self._refuse()

    def num_cached_tokens(self, request: ArrivalView) -> int:
        self._refuse()


def _context(num_replicas: int) -> RoutingContext:
    return RoutingContext(num_replicas=num_replicas, max_num_seqs=4, num_blocks=100, block_size=_BLOCK_SIZE)


def _maker(create: Create, **options: object) -> Callable[[RoutingContext], RoutingPolicy]:
    return lambda context: create(context, **options)


def _random_replicas(rng: random.Random, count: int) -> Sequence[ReplicaView]:
    loads, free, cached = rng.choice([(0,), (7,), (0, 10**6)]), rng.choice([(0,), (100,), (0, 100)]), (0, 8, 10**6)
    alike = rng.random() < 0.3
    made = [
        FakeReplica(
            num_unfinished=rng.choice(loads),
            num_running=rng.randint(0, 4),
            num_free_blocks=rng.choice(free),
            cached=rng.choice(cached),
        )
        for _ in range(count)
    ]
    return [made[0]] * count if alike else made


def _new_request(number: int) -> FakeRequest:
    """One whose prompt nobody had before."""
    hashes = tuple(f"{number}.{block}".encode() for block in range(4))
    return FakeRequest(arrival_time=float(number), num_prompt_tokens=17, tenant=f"t{number}", hashes=hashes)
