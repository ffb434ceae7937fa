"""The contract of routing policies: each mistake is found by the test that names it, and what is right passes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from vcore.errors import PolicyError
from vcore.interfaces import ArrivalView, ReplicaView, RoutingContext, RoutingPolicy
from vcore.testing import RoutingPolicyContract, SimulatedFleet
from vcore.traces import Trace, TraceRequest


class Emptiest(RoutingPolicy):
    def __init__(self, context: RoutingContext) -> None:
        self.num_replicas = context.num_replicas

    def choose(self, request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
        return max(range(len(replicas)), key=lambda index: replicas[index].num_free_blocks)


class OnePastTheEnd(Emptiest):
    def choose(self, request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
        return request.num_prompt_tokens % (self.num_replicas + 1)


class NoneWhereAllAreBusy(Emptiest):
    def choose(self, request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
        idle = [index for index, one in enumerate(replicas) if one.num_free_blocks and one.num_unfinished < 10]
        return idle[request.num_prompt_tokens % len(idle)]


class LooksSecretly(Emptiest):
    looks_at_replicas = False


class Draws(Emptiest):
    def choose(self, request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
        return random.randrange(len(replicas))


class SharesState(Emptiest):
    count: list[int] = []

    def choose(self, request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
        self.count.append(0)
        return len(self.count) // 7 % len(replicas)


class Remembers(Emptiest):
    def __init__(self, context: RoutingContext) -> None:
        super().__init__(context)
        self.homes: dict[bytes, int] = {}

    def choose(self, request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
        first = next(iter(request.prefix_hashes()), b"")
        return self.homes.setdefault(first, len(self.homes) % len(replicas))


class LooksAtAllOfThem(Remembers):
    def choose(self, request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
        super().choose(request, replicas)
        return sum(1 for home in self.homes.values() if home) % len(replicas)


class Copies(Remembers):
    def choose(self, request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
        super().choose(request, replicas)
        return len(list(self.homes)) % len(replicas)


def contract(test: str, policy: Callable[[RoutingContext], RoutingPolicy]) -> None:
    arguments = [3] if test == "test_every_request_is_sent_somewhere" else []
    getattr(RoutingPolicyContract(), test)(lambda context, **options: policy(context), *arguments)


MISTAKES = [
    ("test_every_request_is_sent_somewhere", OnePastTheEnd, "choose answered 3; expected the index of one of 3"),
    ("test_no_state_of_replicas_is_too_much_for_it", OnePastTheEnd, "it chose"),
    ("test_no_state_of_replicas_is_too_much_for_it", NoneWhereAllAreBusy, "by zero"),
    ("test_it_looks_at_replicas_only_if_it_says_so", LooksSecretly, "but `looks_at_replicas` is False"),
    ("test_the_same_traffic_is_routed_the_same_way", Draws, "the same requests went to"),
    ("test_the_same_traffic_is_routed_the_same_way", SharesState, "the same requests went to"),
    ("test_what_it_remembers_has_an_end", Remembers, "references more"),
    ("test_a_choice_costs_no_more_after_many_requests", LooksAtAllOfThem, "instructions"),
    ("test_a_choice_costs_no_more_after_many_requests", Copies, "bytes"),
]


@pytest.mark.parametrize(("test", "policy", "message"), MISTAKES, ids=lambda value: str(value))
def test_a_mistake_is_found(test: str, policy: Callable[[RoutingContext], RoutingPolicy], message: str) -> None:
    with pytest.raises((AssertionError, PolicyError, ZeroDivisionError), match=message):
        contract(test, policy)


@pytest.mark.parametrize("test", sorted({mistake[0] for mistake in MISTAKES}))
def test_what_is_right_passes(test: str) -> None:
    contract(test, Emptiest)


def test_a_fleet_says_where_each_request_went() -> None:
    # Prompts of ten blocks, each computed in two steps: the second has taken less when the third comes.
    requests = tuple(TraceRequest(arrival_s=0.1 * n, input_length=40, output_length=20) for n in range(3))
    fleet = SimulatedFleet(Emptiest, 2, max_num_seqs=1)
    assert fleet.serve(Trace("t", "csv", requests)) == [0, 1, 1]
    assert isinstance(fleet.policy, Emptiest)
