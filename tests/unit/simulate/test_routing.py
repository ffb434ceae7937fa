"""A routing policy in a simulation: what it sees, when it is asked, and what a wrong answer comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from vcore.bench.serve.slo import Slo
from vcore.config import load_config
from vcore.errors import PluginNotFoundError, PluginOptionsError, PolicyError
from vcore.interfaces.routing import ArrivalView, ReplicaView, RoutingContext, RoutingPolicy
from vcore.plugins import RoutingPolicySpec, discover
from vcore.scheduler import SchedulerSettings
from vcore.simulate import FleetOptions, Policies, Simulation, SimulationSettings, StepTimeModel, simulate
from vcore.simulate.checked_routing import CheckedRouting
from vcore.simulate.report import describe
from vcore.testing import FakeReplica, FakeRequest
from vcore.traces import Trace, TraceRequest

Choose = Callable[[ArrivalView, Sequence[ReplicaView]], int]

PROMPT = (1, 2, 3)
"""Block ids of a prompt of twelve tokens."""


def requests(*arrivals: float, **fields: object) -> Trace:
    made = [
        TraceRequest(arrival_s=at, input_length=12, output_length=5, block_ids=PROMPT, **fields)  # type: ignore[arg-type]
        for at in arrivals
    ]
    return Trace("t", "csv", tuple(made), 4)


def run(
    choose: Choose, trace: Trace, replicas: int = 2, *, strict: bool = False, looks: bool = True, slo: Slo | None = None
) -> Simulation:
    """A simulation whose requests are routed by a function."""

    class ByFunction(RoutingPolicy):
        looks_at_replicas = looks

        def __init__(self, *, options: None, context: RoutingContext) -> None:
            CONTEXTS.append(context)

        def choose(self, request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
            return choose(request, replicas)

    CONTEXTS.clear()
    config = load_config(None, {"simulation.routing": "mine"})
    spec = RoutingPolicySpec(name="mine", load=ByFunction, api="1.0", summary="test")
    chosen = SimulationSettings(
        scheduler=SchedulerSettings(
            max_num_seqs=2, max_num_batched_tokens=64, max_model_len=64, block_size=4, num_blocks=21, strict=strict
        ),
        policies=Policies(config, discover(config.plugins, objects=[spec])),
        step_time=StepTimeModel(base_s=1.0),
        fleet=FleetOptions(replicas=replicas, seed=7, slo=slo),
    )
    return simulate(trace, chosen)


CONTEXTS: list[RoutingContext] = []
"""What policies were made with."""


def test_it_sees_replicas_as_they_are_when_a_request_arrives() -> None:
    seen = []

    def first(request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
        seen.append(
            [
                (one.num_unfinished, one.num_running, one.num_free_blocks, one.num_cached_tokens(request))
                for one in replicas
            ]
        )
        return 0

    run(first, requests(0.0, 0.5, 1.5, 1.6, 50.0))
    idle = (0, 0, 20, 0)
    # A step takes a second: the first request is taken in at once, the second and the others when a step has ended.
    assert [one[1] for one in seen] == [idle] * 5
    assert [one[0][:2] for one in seen] == [(0, 0), (1, 1), (2, 2), (3, 2), (0, 0)]
    assert seen[0][0] == idle
    assert seen[1][0][2] == 20 - 3  # its twelve tokens
    # Of a prompt at least one token is computed, and its beginning stays when its request has ended.
    assert [one[0][3] for one in seen[2:]] == [8, 8, 8]
    assert seen[-1][0][2] == 20


def test_it_sees_what_a_request_says_and_no_more() -> None:
    seen: list[ArrivalView] = []

    def first(request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
        seen.append(request)
        return 0

    trace = requests(0.0, 2.0, tenant="a", priority=3)
    run(first, trace, slo=Slo(ttft=9.0, itl=8.0))
    request = seen[1]
    assert (request.arrival_time, request.num_prompt_tokens, request.max_tokens) == (2.0, 12, 5)
    assert (request.tenant, request.priority, request.expected_tokens) == ("a", 3, None)
    assert (request.ttft_target_s, request.itl_target_s) == (9.0, 8.0)
    assert len(request.prefix_hashes()) == 3
    assert request.prefix_hashes() == seen[0].prefix_hashes()
    assert not hasattr(request, "output_length")


def test_it_is_told_of_the_fleet() -> None:
    run(lambda request, replicas: 0, requests(0.0), 3)
    [context] = CONTEXTS
    assert context == RoutingContext(num_replicas=3, max_num_seqs=2, num_blocks=20, block_size=4, seed=7)


def test_one_replica_asks_nobody() -> None:
    def never(request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
        raise AssertionError("there is nothing to choose")

    done = run(never, requests(0.0, 1.0), 1, strict=True)
    assert not CONTEXTS
    assert describe(done)["routing"] == "mine"


def test_replicas_are_not_brought_up_to_the_moment_for_one_that_does_not_look() -> None:
    seen = []

    def by_turns(request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
        seen.append([one.num_running for one in replicas])
        return 0

    run(by_turns, requests(0.0, 0.5), looks=False)
    assert seen == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("choose", "found"),
    [
        (lambda request, replicas: 2, "choose answered 2"),
        (lambda request, replicas: -1, "choose answered -1"),
        (lambda request, replicas: None, "choose raised TypeError"),
        (lambda request, replicas: 0.0, "choose raised TypeError"),
        (lambda request, replicas: replicas[2].num_running, "choose raised IndexError"),
        (lambda request, replicas: exit(3), "choose raised SystemExit"),
    ],
)
def test_a_fault_is_named_once_and_replicas_take_turns(
    choose: Choose, found: str, caplog: pytest.LogCaptureFixture
) -> None:
    done = run(choose, requests(0.0, 1.0, 2.0, 3.0))
    [fault] = done.faults
    assert fault.startswith("routing_policy")
    assert "mine" in fault
    assert found in fault
    assert "expected the index of one of 2 replicas, from 0 to 1" in fault
    assert describe(done)["faults"] == [fault]
    [record] = [one for one in caplog.records if one.levelname == "ERROR"]
    assert "From now on replicas take turns" in record.getMessage()
    assert [stats.prefix_query_tokens for stats in done.stats] == [24, 24]
    with pytest.raises(PolicyError, match=f"mine.*{found}.*plugins.strict is set"):
        run(choose, requests(0.0), strict=True)


def test_a_policy_that_cannot_say_whether_it_looks_is_not_asked(caplog: pytest.LogCaptureFixture) -> None:
    class Mute(RoutingPolicy):
        @property
        def looks_at_replicas(self) -> bool:  # type: ignore[override]  # as plugins write it
            raise KeyError("gone")

        def choose(self, request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
            raise AssertionError("it has lost its standing")

    checked = CheckedRouting(Mute(), "mute 1.0", strict=False)
    views = [FakeReplica(), FakeReplica()]
    assert [checked.choose(FakeRequest(), views) for _ in range(3)] == [0, 1, 0]
    assert not checked.looks_at_replicas
    assert checked.standing.fault == "mute 1.0: looks_at_replicas raised KeyError('gone'); expected True or False"


def test_what_is_not_there_and_options_that_do_not_fit_are_refused() -> None:
    def make(choice: object) -> None:
        config = load_config(None, {"simulation.routing": choice})
        Policies(config, discover(config.plugins))

    with pytest.raises(PluginNotFoundError, match=r"there is no routing_policy .*did you mean 'least_loaded'"):
        make("least_load")
    with pytest.raises(PluginOptionsError, match="slack"):
        make({"name": "prefix_aware", "options": {"slack": 0.5}})
