"""Loads that are sustained, and policies above them."""

from __future__ import annotations

import pytest

from vcore.bench.serve.arrivals import Arrivals
from vcore.bench.serve.slo import Slo
from vcore.config import load_config
from vcore.errors import ConfigError
from vcore.simulate import Deployment, FleetOptions, StepTimeModel
from vcore.simulate.overload import compare_overloaded, describe_overloaded
from vcore.simulate.scenario import Scenario
from vcore.simulate.sustained import sustained_load
from vcore.traces import Trace, TraceRequest

DEPLOYMENT = Deployment(
    name="slow", step_time=StepTimeModel(base_s=0.01, token_s=1e-3), cache_tokens=4096, max_num_batched_tokens=64
)


def scenario(slo: Slo | None = None, arrivals: Arrivals = Arrivals.TRACE) -> Scenario:
    """A request of 90 to 150 tokens a second, each of which alone takes about 0.2 s."""
    requests = tuple(
        TraceRequest(arrival_s=float(n), input_length=90 + 10 * (n % 7), output_length=4) for n in range(60)
    )
    return Scenario(
        trace=Trace("even", "csv", requests),
        deployment=DEPLOYMENT,
        config=load_config(None, {"cache.prefix_caching": False}),
        fleet=FleetOptions(slo=slo),
        arrivals=arrivals,
    )


def test_what_is_found_is_sustained_and_a_little_more_is_not() -> None:
    one = scenario(Slo(ttft=1.0))
    tried: dict[float, float] = {}
    found = sustained_load(one, share=0.95, precision=0.02, report=tried.__setitem__)
    assert tried[found] >= 0.95
    above = min(load for load in tried if load > found)
    assert tried[above] < 0.95
    assert above <= found * 1.02
    assert 2 < found < 20
    near = sustained_load(one, share=0.95, precision=0.02, near=found)
    assert near == pytest.approx(found, rel=0.04)


def test_a_load_below_the_recorded_pace_is_found() -> None:
    one = scenario(Slo(ttft=1.0))
    found = sustained_load(one, share=0.95, near=40.0)
    assert found == pytest.approx(sustained_load(one, share=0.95), rel=0.05)


@pytest.mark.parametrize(
    ("slo", "message"),
    [
        (None, "add --slo"),
        (Slo(ttft=1e-6), "no load down to 0.000"),
        (Slo(ttft=1e5), "every load up to 4096"),
    ],
)
def test_where_nothing_can_be_found_it_is_said(slo: Slo | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sustained_load(scenario(slo))


def test_policies_are_compared_above_what_the_first_sustains() -> None:
    one = scenario(Slo(ttft=1.0), Arrivals.POISSON)
    runs = compare_overloaded(one, ["fcfs", "shortest_job"], seeds=[3, 4], share=0.9, times=1.5)
    assert [run.seed for run in runs] == [3, 4]
    assert runs[0].sustained_load != runs[1].sustained_load
    for run in runs:
        answers = run.answers
        assert answers["fcfs"]["load"] == answers["shortest_job"]["load"] == pytest.approx(run.sustained_load * 1.5)
        assert answers["fcfs"]["goodput"]["share"] < 0.9
    told = describe_overloaded(runs)
    first, second = told["policies"]
    assert first["ratio"] == {"mean": 1.0, "least": 1.0, "most": 1.0}
    assert second["ratio"]["least"] <= second["ratio"]["mean"] <= second["ratio"]["most"]
    assert second["scheduling"] == "shortest_job"


def test_no_ratio_to_a_goodput_of_nothing() -> None:
    runs = compare_overloaded(scenario(Slo(ttft=1.0)), ["fcfs"], share=0.9, times=1.5)
    runs[0].answers["fcfs"]["goodput"] = {"requests_per_s": 0.0, "share": 0.0}
    assert describe_overloaded(runs)["policies"][0]["ratio"] is None
