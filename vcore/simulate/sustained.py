"""`sustained_load`: how much of a trace's traffic can come before too many requests miss their targets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from vcore.errors import ConfigError
from vcore.simulate.scenario import Scenario

__all__ = ["sustained_load"]

_MOST_DOUBLINGS = 12
"""From the recorded pace, up or down."""


def sustained_load(
    scenario: Scenario,
    *,
    share: float = 0.99,
    precision: float = 0.01,
    report: Callable[[float, float], None] = lambda load, share: None,
) -> float:
    """The highest load at which that share of the requests keeps the SLO, by bisection.

    Drawn arrivals are the same draws at every load, only closer together, so that what is bisected is one function of
    the load. It need not fall everywhere; then the answer is one of the loads where it crosses `share`.

    Args:
        scenario: whose `FleetOptions.slo` is set. Its load and rate play no part.
        share: of all requests, refused ones too.
        precision: the load that is found is at most that much, relatively, below one that is not sustained.
        report: told of each load that was tried and the share there.

    Returns:
        Times the recorded pace.

    Raises:
        ConfigError: no load within a factor of 4,096 of the recorded pace is sustained, or each is.
    """

    def keeps(load: float) -> bool:
        goodput = replace(scenario, load=load, rate=None).run().answer["goodput"]
        if goodput is None:
            raise ConfigError("a sustained load is one at which the SLO is kept, and there is none: add --slo")
        report(load, goodput["share"])
        return bool(goodput["share"] >= share)

    least, most = _bracket(keeps, scenario.trace.name, share)
    while most > least * (1 + precision):
        middle = math.sqrt(least * most)
        least, most = (middle, most) if keeps(middle) else (least, middle)
    return least


def _bracket(keeps: Callable[[float], bool], name: str, share: float) -> tuple[float, float]:
    """A load that is sustained and twice as much, which is not."""
    load = 1.0
    up = keeps(load)
    for _ in range(_MOST_DOUBLINGS):
        if not up:
            load /= 2
        if keeps(load * 2 if up else load) is not up:
            return load, load * 2
        if up:
            load *= 2
    raise ConfigError(
        f"{name}: {share:.0%} of the requests keep the SLO at "
        + (f"every load up to {load:g}" if up else f"no load down to {load:g}")
        + "; change the SLO, or take another trace"
    )
