"""``vcore simulate overload``: policies at more than the load that the first of them sustains."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from vcore.cli.output import reserved_stdout
from vcore.cli.shared_options import Json
from vcore.cli.simulate_options import ScenarioOptions, Schedulings, expanded
from vcore.errors import ConfigError

__all__ = ["overload"]


@expanded(ScenarioOptions, without=("rate",))
def overload(
    options: ScenarioOptions,
    scheduling: Schedulings = None,
    draws: Annotated[int, typer.Option("--draws", min=1, help="How often arrivals are drawn, from --seed on.")] = 1,
    share: Annotated[
        float, typer.Option("--share", help="Of requests that keep the SLO where it is sustained.")
    ] = 0.99,
    times: Annotated[float, typer.Option("--times", help="The load of the comparison over that one.")] = 1.2,
    near: Annotated[float | None, typer.Option("--near", help="About the load that is sustained, if known.")] = None,
    as_json: Json = False,
) -> None:
    """Find the load that the first --scheduling policy sustains, and compare all of them above it."""
    from vcore.simulate.overload import compare_overloaded, describe_overloaded

    if not scheduling or len(set(scheduling)) < 2:
        raise ConfigError(
            "there is nothing to compare: give --scheduling several policies, the one to be measured by first"
        )
    if options.slo is None:
        raise ConfigError("a load is sustained while the SLO is kept: add --slo")
    if draws > 1 and options.arrivals == "trace":
        raise ConfigError(
            "--draws is of drawn arrivals, and recorded ones are the same every time: add --arrivals poisson"
        )
    if not (0 < share < 1 and 0 < times < math.inf and (near is None or 0 < near < math.inf)):
        raise ConfigError("expected --share between 0 and 1, and --times and --near above 0")
    scenario = options.scenario()
    with reserved_stdout(as_json) as emit:
        runs = compare_overloaded(
            scenario,
            scheduling,
            seeds=range(options.seed, options.seed + draws),
            share=share,
            times=times,
            near=near,
            report=lambda line: print(line, file=sys.stderr),
        )
        found = describe_overloaded(runs)
        if as_json:
            emit({"trace": scenario.trace.name, "deployment": scenario.deployment.name, **found})
        else:
            _print(f"{scenario.trace.name} on {scenario.deployment.name}", found, share, times)


def _print(title: str, found: Mapping[str, Any], share: float, times: float) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title))
    for name in ("policy", "goodput, requests/s", "share within the SLO", "times the first"):
        table.add_column(name, justify="left" if name == "policy" else "right")
    for one in found["policies"]:
        ratio = "-" if one["ratio"] is None else _range(one["ratio"], "{:.3g}")
        cells = _range(one["goodput"], "{:.3g}"), _range(one["share"], "{:.1%}"), ratio
        table.add_row(Text(one["scheduling"]), *cells)
    Console().print(table)
    loads = ", ".join(f"{run['sustained_load']:.3g}" for run in found["runs"])
    first = found["policies"][0]["scheduling"]
    print(
        f"at {times:g} times the load at which {first} keeps the SLO for {share:.0%}: {loads} times the recorded pace"
    )


def _range(values: Mapping[str, float], form: str) -> str:
    """The mean, and from where to where."""
    mean, least, most = (form.format(values[name]) for name in ("mean", "least", "most"))
    return mean if values["least"] == values["most"] else f"{mean} ({least} to {most})"
