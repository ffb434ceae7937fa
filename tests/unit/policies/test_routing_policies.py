"""Which replica each routing policy chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from vcore.config import PluginsConfig
from vcore.errors import PluginOptionsError
from vcore.interfaces.routing import RoutingContext, RoutingPolicy
from vcore.plugins import PluginKind, discover
from vcore.testing import FakeReplica, FakeRequest

CATALOG = discover(PluginsConfig())


def make(name: str, num_replicas: int, seed: int = 0, options: Mapping[str, Any] | None = None) -> RoutingPolicy:
    context = RoutingContext(num_replicas=num_replicas, max_num_seqs=4, num_blocks=100, block_size=4, seed=seed)
    entry = CATALOG.find(PluginKind.ROUTING_POLICY, name)
    made = CATALOG.create(entry, options=options or {}, context=context)
    assert isinstance(made, RoutingPolicy)
    return made


def choose(name: str, replicas: Sequence[FakeReplica], times: int = 1, **options: Any) -> list[int]:
    policy = make(name, len(replicas), options=options)
    return [policy.choose(FakeRequest(num_prompt_tokens=1000), replicas) for _ in range(times)]


def seen(num_unfinished: int, cached: int = 0) -> FakeReplica:
    return FakeReplica(num_unfinished=num_unfinished, cached=cached)


def test_round_robin_takes_turns_and_looks_at_nobody() -> None:
    assert choose("round_robin", [seen(9), seen(0), seen(5)], 4) == [0, 1, 2, 0]
    assert not make("round_robin", 3).looks_at_replicas


def test_the_least_loaded_is_chosen() -> None:
    assert choose("least_loaded", [seen(3), seen(1), seen(2)], 2) == [1, 1]


def test_of_equally_loaded_ones_each_has_its_turn() -> None:
    assert choose("least_loaded", [seen(0), seen(0), seen(0)], 4) == [0, 1, 2, 0]
    assert choose("least_loaded", [seen(1), seen(0), seen(0)], 3) == [1, 2, 1]


def test_of_two_drawn_the_less_loaded_is_chosen() -> None:
    chosen = choose("power_of_two", [seen(9), seen(1), seen(2)], 100)
    assert set(chosen) == {1, 2}  # the most loaded never wins
    assert 50 < chosen.count(1) < 85  # two of three times it is among the two


def test_so_many_are_drawn_as_one_says() -> None:
    replicas = [seen(9), seen(1), seen(2)]
    assert set(choose("power_of_two", replicas, 100, choices=1)) == {0, 1, 2}
    assert set(choose("power_of_two", replicas, 100, choices=3)) == {1}


def test_what_is_drawn_follows_from_the_seed() -> None:
    replicas = [seen(0) for _ in range(9)]
    drawn = []
    for seed in (1, 1, 2):
        policy = make("power_of_two", 9, seed)
        drawn.append([policy.choose(FakeRequest(), replicas) for _ in range(20)])
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_prefix_attracts_until_the_load_is_uneven() -> None:
    assert choose("prefix_aware", [seen(3), seen(4, 100)]) == [1]
    assert choose("prefix_aware", [seen(3), seen(30, 100)]) == [0]
    assert choose("prefix_aware", [seen(3, 100), seen(2, 100)]) == [1]
    assert choose("prefix_aware", [seen(2, 100), seen(2, 100)]) == [0]


def test_slack_says_how_uneven_it_may_be() -> None:
    replicas = [seen(3), seen(30, 100)]
    assert choose("prefix_aware", replicas, slack=2.0) == [1]  # the mean is 17, the new one counted
    assert choose("prefix_aware", [seen(3), seen(4, 100)], slack=1.0) == [0]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("power_of_two", {"choices": 0}),
        ("prefix_aware", {"slack": 0.9}),
        ("prefix_aware", {"slack": float("inf")}),
        ("round_robin", {"choices": 2}),
    ],
)
def test_options_without_a_meaning_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(PluginOptionsError, match=f"routing_policy '{name}' of vcore-engine"):
        make(name, 2, options=options)
