"""`compare_overloaded`: policies at a multiple of the load that the first of them sustains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vcore.simulate.scenario import Scenario
from vcore.simulate.sustained import sustained_load

__all__ = ["OverloadedRun", "compare_overloaded", "describe_overloaded"]


@dataclass(frozen=True, slots=True)
class OverloadedRun:
    """One drawing of arrivals."""

    seed: int
    sustained_load: float
    """Times the recorded pace, of the first policy."""
    answers: dict[str, dict[str, Any]]
    """By policy, of `vcore.simulate.report.describe`, at the higher load."""


def compare_overloaded(
    scenario: Scenario,
    scheduling: Sequence[str],
    *,
    seeds: Iterable[int] = (0,),
    share: float = 0.99,
    times: float = 1.2,
    near: float | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> list[OverloadedRun]:
    """For each seed find the load that the first policy sustains, and serve `times` as much with each.

    Args:
        scenario: whose SLO is set.
        scheduling: names of policies.
        seeds: of drawn arrivals.
        share: of requests that keep the SLO at a load that is sustained.
        times: the load of the comparison, over the one that is sustained.
        near: about where the first one lies, times the recorded pace.
        report: told what is done.

    Raises:
        ConfigError: see `sustained_load`.
        PluginError: a policy is missing, broken or ambiguous.
    """
    runs: list[OverloadedRun] = []
    for seed in seeds:
        one = replace(scenario, fleet=replace(scenario.fleet, seed=seed))

        def tried(load: float, kept: float, seed: int = seed) -> None:
            report(f"seed {seed}, {scheduling[0]}, load {load:.4g}: {kept:.2%} keep the SLO")

        found = sustained_load(one.with_policies(scheduling[0], None), share=share, near=near, report=tried)
        near = found
        answers = {}
        for name in scheduling:
            report(f"seed {seed}, {name}, load {found * times:.4g}")
            answers[name] = replace(one.with_policies(name, None), load=found * times, rate=None).run().answer
        runs.append(OverloadedRun(seed, found, answers))
    return runs


def describe_overloaded(runs: Sequence[OverloadedRun]) -> dict[str, Any]:
    """Plain data for JSON.

    Returns:
        ``runs``, each with ``seed``, ``sustained_load`` and ``rate`` (arrivals a second in the comparison); and
        ``policies``, each with ``scheduling`` and, over the runs as ``mean``, ``least`` and ``most``, ``goodput``
        (requests a second), ``share`` and ``ratio`` (goodput over that of the first policy in the same run; None if
        that had none).
    """
    names = list(runs[0].answers)
    return {
        "runs": [
            {"seed": run.seed, "sustained_load": run.sustained_load, "rate": run.answers[names[0]]["rate"]}
            for run in runs
        ],
        "policies": [{"scheduling": name, **_figures(runs, name, names[0])} for name in names],
    }


def _figures(runs: Sequence[OverloadedRun], name: str, first: str) -> Mapping[str, Any]:
    goodput = np.array([run.answers[name]["goodput"]["requests_per_s"] for run in runs])
    reference = np.array([run.answers[first]["goodput"]["requests_per_s"] for run in runs])
    share = np.array([run.answers[name]["goodput"]["share"] for run in runs])
    ratio = _range(goodput / reference) if (reference > 0).all() else None
    return {"goodput": _range(goodput), "share": _range(share), "ratio": ratio}


def _range(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    return {"mean": float(values.mean()), "least": float(values.min()), "most": float(values.max())}
