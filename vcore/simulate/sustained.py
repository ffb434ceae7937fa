"""`sustained_load`: how much of a trace's traffic can come before too many requests miss their targets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from vcore.errors import ConfigError
from vcore.simulate.scenario import Scenario

__all__ = ["sustained_load"]

_FACTOR = 2.0
"""Between the loads that are tried first."""
_NEAR_FACTOR = 1.1
"""The same where it is known about where the answer lies."""
_FAR = 4096.0
"""No load beyond so many times the first one, or so small a part of it, is tried."""


def sustained_load(
    scenario: Scenario,
    *,
    share: float = 0.99,
    precision: float = 0.01,
    near: float | None = None,
    report: Callable[[float, float], None] = lambda load, share: None,
) -> float:
    """The highest load at which that share of the requests keeps the SLO, by bisection.

    Drawn arrivals are the same draws at every load, only closer together, so that what is bisected is one function of
    the load. It need not fall everywhere; then the answer is one of the loads where it crosses `share`.

    Args:
        scenario: whose `FleetOptions.slo` is set. Its load and rate play no part.
        share: of all requests, refused ones too.
        precision: the load that is found is at most that much, relatively, below one that is not sustained.
        near: about where to look first; None for the recorded pace.
        report: told of each load that was tried and the share there.

    Returns:
        Times the recorded pace.

    Raises:
        ConfigError: there is no SLO; or no load within a factor of 4,096 of the first one is sustained, or each is.
    """

    def keeps(load: float) -> bool:
        goodput = replace(scenario, load=load, rate=None).run().answer["goodput"]
        if goodput is None:
            raise ConfigError("a sustained load is one at which the SLO is kept, and there is none: add --slo")
        report(load, goodput["share"])
        return bool(goodput["share"] >= share)

    first, factor = (1.0, _FACTOR) if near is None else (near, _NEAR_FACTOR)
    least, most = _bracket(keeps, first, factor, f"{scenario.trace.name}: {share:.0%} of the requests keep the SLO at")
    while most > least * (1 + precision):
        middle = math.sqrt(least * most)
        least, most = (middle, most) if keeps(middle) else (least, middle)
    return least


def _bracket(keeps: Callable[[float], bool], first: float, factor: float, what: str) -> tuple[float, float]:
    """A load that is sustained and one, `factor` times as much, that is not."""
    load, up = first, keeps(first)
    while first / _FAR < load < first * _FAR:
        following = load * factor if up else load / factor
        if keeps(following) is not up:
            return (load, following) if up else (following, load)
        load = following
    raise ConfigError(f"{what} {'every load up to' if up else 'no load down to'} {load:g}; change the SLO")
