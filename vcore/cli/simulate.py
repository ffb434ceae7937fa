"""``vcore simulate``: recorded traffic, served without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from vcore.cli.option_values import positive
from vcore.cli.output import reserved_stdout
from vcore.cli.shared_options import Json, Model
from vcore.cli.simulate_calibrate import run_calibration
from vcore.cli.simulate_fidelity import fidelity
from vcore.cli.simulate_options import Plot, ScenarioOptions, TraceOptions, expanded
from vcore.cli.simulate_overload import overload
from vcore.cli.simulate_timed import compare, run_one, sweep
from vcore.errors import ConfigError

__all__ = ["app"]

T = TypeVar("T")

app = typer.Typer(add_completion=False, invoke_without_command=True)
app.command("compare")(compare)
app.command("sweep")(sweep)
app.command("overload")(overload)
app.command("fidelity")(fidelity)


@app.callback()
@expanded(ScenarioOptions)
def command(
    context: typer.Context,
    options: ScenarioOptions,
    cache_only: Annotated[
        bool, typer.Option("--cache-only", help="The prefix cache alone, requests one after another.")
    ] = False,
    num_blocks: Annotated[
        list[int] | None,
        typer.Option("--num-blocks", min=1, metavar="C", help="Size of the cache; with --cache-only several."),
    ] = None,
    eviction: Annotated[
        list[str] | None, typer.Option("--eviction", metavar="POLICY", help="With --cache-only several.")
    ] = None,
    scheduling: Annotated[str | None, typer.Option("--scheduling", metavar="POLICY", help="As the engine's.")] = None,
    load: Annotated[float | None, typer.Option("--load", help="Times the recorded pace.")] = None,
    plot: Plot = None,
    calibrate: Annotated[
        Path | None, typer.Option("--calibrate", metavar="FILE", help="Measure the engine, write its deployment there.")
    ] = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Serve recorded traffic without a model: in simulated time, or with --cache-only the prefix cache alone."""
    if context.invoked_subcommand is not None:
        return
    timed = {"--scheduling": scheduling, "--load": load, "--plot": plot}
    if calibrate is not None:
        run_calibration(calibrate, options, model, as_json=as_json)
    elif cache_only:
        _leave_out("--cache-only is of the cache alone", _set_for_time(options) | timed)
        _replay(options, num_blocks, eviction, as_json)
    else:
        run_one(
            options,
            plot=plot,
            as_json=as_json,
            load=None if load is None else positive("--load", load),
            num_blocks=_single("--num-blocks", num_blocks),
            eviction=_single("--eviction", eviction),
            scheduling=scheduling,
        )


def _set_for_time(options: ScenarioOptions) -> dict[str, object]:
    """Options that only a simulation in time heeds: their values, None where they are as if not given."""
    heeded = {one.name for one in fields(TraceOptions)} - {"rate"}
    own = (one for one in fields(ScenarioOptions) if one.name not in heeded)
    return {
        f"--{one.name.replace('_', '-')}": None if (value := getattr(options, one.name)) == one.default else value
        for one in own
    }


def _leave_out(why: str, options: Mapping[str, object]) -> None:
    """Raises:
    ConfigError: one of the options is given.
    """
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ConfigError(f"{why}: leave {', '.join(given)} out")


def _single(option: str, values: Sequence[T] | None) -> T | None:
    if values and len(values) > 1:
        raise ConfigError(
            f"{option} is given {len(values)} times, which is for --cache-only; see vcore simulate compare"
        )
    return values[0] if values else None


def _replay(options: ScenarioOptions, num_blocks: list[int] | None, eviction: list[str] | None, as_json: bool) -> None:
    from vcore.config.cli_options import config_from_cli
    from vcore.simulate import report_cache

    if not num_blocks:
        raise ConfigError("--cache-only needs the size of the cache: add --num-blocks C")
    tree, base_dir = config_from_cli(options.config, options.set_ or [], options.plugins or [])
    with reserved_stdout(as_json) as emit:
        report = report_cache(options.read(), num_blocks, tree, eviction or (), base_dir)
        if as_json:
            emit(report)
        else:
            _print(report)


def _print(report: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    title = f"{report['trace']}: {report['num_requests']:,} requests, {report['prompt_blocks']:,} prompt blocks"
    table = Table(title=Text(title))
    for name in ("blocks", "policy", "hit rate", "of the optimum", "optimum", "ideal"):
        table.add_column(name, justify="left" if name == "policy" else "right")
    for row in report["rows"]:
        share = row["hit_rate"] / row["optimum"] if row["optimum"] else 1.0
        rates = f"{row['hit_rate']:.4f}", f"{share:.0%}", f"{row['optimum']:.4f}", f"{report['ideal']:.4f}"
        table.add_row(f"{row['num_blocks']:,}", Text(row["eviction"]), *rates)
    Console().print(table)
