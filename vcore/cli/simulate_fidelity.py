"""``vcore simulate fidelity``: how near a simulation comes to the engine that it simulates, on this machine."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vcore.cli.option_values import one_of, positive
from vcore.cli.output import reserved_stdout
from vcore.cli.shared_options import Json, Model
from vcore.cli.simulate_options import TraceOptions, expanded

__all__ = ["fidelity", "print_fidelity"]

_MOST_DEVIATION = 0.15
"""Of a latency, as a share of the engine's."""
_MOST_HIT_DEVIATION = 0.01


class _Clock(StrEnum):
    WALL = "wall"
    CPU = "cpu"


@expanded(TraceOptions)
def fidelity(
    options: TraceOptions,
    model: Model = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Passes of the calibration that count.")] = 3,
    clock: Annotated[str, typer.Option("--clock", help="wall, or cpu: seconds of this process on its CPU.")] = "wall",
    as_json: Json = False,
) -> None:
    """Calibrate an engine, serve a trace with it in real time, simulate the same, and print both.

    Without --model and --config the engine is a small Llama with made-up weights, on one thread of the CPU.
    """
    from vcore.config.cli_options import config_from_cli
    from vcore.simulate.engine_replay import CpuClock, WallClock
    from vcore.simulate.fidelity import measure_fidelity
    from vcore.simulate.small_model import SMALL_ENGINE, write_small_model
    from vcore.traces import scale_times

    trace = options.read()
    if options.rate is not None:
        trace = scale_times(trace, positive("--rate", options.rate))
    chosen = CpuClock() if one_of(_Clock, "--clock", clock) is _Clock.CPU else WallClock()
    with reserved_stdout(as_json) as emit, tempfile.TemporaryDirectory() as folder:
        sets = list(options.set_ or [])
        if model is None and options.config is None:
            model = str(write_small_model(Path(folder)))
            sets = [*SMALL_ENGINE, *sets]
        tree, base_dir = config_from_cli(options.config, sets, options.plugins or [], model)
        found = measure_fidelity(
            tree,
            trace,
            repeats=repeats,
            base_dir=base_dir,
            report=lambda line: print(line, file=sys.stderr),
            clock=chosen,
        )
        if as_json:
            emit({"trace": trace.name, "rate": trace.rate, **found})
        else:
            print_fidelity(trace.name, found)


def print_fidelity(name: str, found: Mapping[str, Any]) -> None:
    """A table of what `vcore.simulate.fidelity.measure_fidelity` found, where what is too far off is marked."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{name}: {found['num_requests']:,} requests, {found['steps']:,} steps"))
    for column in ("", "engine", "simulated", "deviation", "fitted to run"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    columns = [found[key] for key in ("engine", "simulation", "fitted_to_run")]
    rates = [column["hit_rate"] for column in columns]
    table.add_row(
        "hit rate", f"{rates[0]:.4f}", f"{rates[1]:.4f}", *(_hit_deviation(rates[0], one) for one in rates[1:])
    )
    table.add_row(
        "  driven by its steps",
        "",
        f"{found['driven_hit_rate']:.4f}",
        _hit_deviation(rates[0], found["driven_hit_rate"]),
    )
    for key, title in (("ttft_s", "first token"), ("itl_s", "between tokens"), ("e2e_s", "end to end")):
        if any(column[key] is None for column in columns):
            continue  # nobody generated a second token
        for share in ("p50", "p90", "p99"):
            times = [column[key][share] for column in columns]
            cells = [f"{seconds * 1e3:,.4g} ms" for seconds in times[:2]]
            table.add_row(f"{title}, {share}", *cells, *(_deviation(times[0], one) for one in times[1:]))
    Console().print(table)
    if found["num_cut"]:
        print(f"{found['num_cut']} requests were cut to what the cache or the model's length holds")
    print(f"beyond {_MOST_DEVIATION:.0%}, or {_MOST_HIT_DEVIATION} of the hit rate: marked *")


def _deviation(real: float, told: float) -> str:
    share = told / real - 1
    return f"{share:+.1%}{'*' if abs(share) > _MOST_DEVIATION else ' '}"


def _hit_deviation(real: float, told: float) -> str:
    return f"{told - real:+.4f}{'*' if abs(told - real) > _MOST_HIT_DEVIATION else ' '}"
