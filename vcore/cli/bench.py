"""``vcore bench``: throughput, latency, startup, overhead, kernels, serve. JSON with ``--json``, or a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from vcore.cli.bench_kernels import kernels
from vcore.cli.bench_serve import serve
from vcore.cli.shared_options import Config, Json, Model, Plugins, Set

app = typer.Typer(no_args_is_help=True, help="Measure the engine.")

NumRequests = Annotated[int | None, typer.Option("--num-requests", min=1, help="Instead of the workload's own.")]
Runs = Annotated[int, typer.Option("--runs", min=1, help="Counted runs.")]
MoERouting = Annotated[
    str | None,
    typer.Option("--moe-routing", help="model or uniform: how tokens choose experts; by random weights, unevenly."),
]


@app.command()
def throughput(
    workload: Annotated[
        str, typer.Option("--workload", "-w", help="nano, single, shared_prefix or long_prefill.")
    ] = "nano",
    num_requests: NumRequests = None,
    runs: Runs = 2,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.6,
    moe_routing: MoERouting = None,
    model: Model = None,
    config: Config = None,
    set_: Set = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Tokens a second of a whole workload; warm-up excluded, the better run reported."""
    from vcore.bench.throughput import measure_throughput
    from vcore.bench.workloads import WORKLOADS
    from vcore.errors import ConfigError

    if workload not in WORKLOADS:
        raise ConfigError(f"no workload {workload!r}; there are {', '.join(WORKLOADS)}")
    tree, base_dir = _config(config, set_, plugins, model, moe_routing)
    with _report(f"throughput: {workload}", as_json) as report:
        report(
            measure_throughput(
                tree,
                workload=workload,
                num_requests=num_requests,
                runs=runs,
                temperature=temperature,
                base_dir=base_dir,
            )
        )


@app.command()
def latency(
    batch_size: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 1,
    input_len: Annotated[int, typer.Option(min=1, help="Prompt tokens.")] = 128,
    output_len: Annotated[int, typer.Option(min=1, help="Generated tokens.")] = 128,
    runs: Runs = 5,
    moe_routing: MoERouting = None,
    model: Model = None,
    config: Config = None,
    set_: Set = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Time to the first token, between tokens, and in all, of one batch."""
    from vcore.bench.latency import measure_latency

    tree, base_dir = _config(config, set_, plugins, model, moe_routing)
    sizes = {"batch_size": batch_size, "input_len": input_len, "output_len": output_len}
    with _report("latency", as_json) as report:
        report(measure_latency(tree, **sizes, runs=runs, base_dir=base_dir))


@app.command()
def startup(
    runs: Runs = 3,
    model: Model = None,
    config: Config = None,
    set_: Set = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Seconds from process start to the first token."""
    from vcore.bench.startup import measure_startup

    tree, base_dir = _config(config, set_, plugins, model)
    with _report("startup", as_json) as report:
        report(measure_startup(tree, runs=runs, base_dir=base_dir))


@app.command()
def overhead(
    num_requests: Annotated[int, typer.Option("--num-requests", min=1, help="Decoding requests.")] = 256,
    cached_blocks: Annotated[int, typer.Option(min=0, help="Blocks of others in the prefix cache.")] = 1000,
    steps: Annotated[int, typer.Option(min=1, help="Counted steps.")] = 300,
    waiting: Annotated[int, typer.Option(min=0, help="Requests that wait; others end and arrive meanwhile.")] = 0,
    policy: Annotated[str | None, typer.Option(help="Scheduling policy: --set scheduler.policy=NAME.")] = None,
    eviction: Annotated[
        list[str] | None, typer.Option(metavar="POLICY", help="Time an eviction policy, too; may be given again.")
    ] = None,
    eviction_blocks: Annotated[int, typer.Option(min=1, help="Size of the cache for that.")] = 100_000,
    set_: Set = None,
    plugins: Plugins = None,
    profile: Annotated[Path | None, typer.Option(help="Write a cProfile of the steps there.")] = None,
    as_json: Json = False,
) -> None:
    """Milliseconds of a step over a model that computes nothing; microseconds of an event of eviction policies."""
    from vcore.bench.eviction import measure_eviction
    from vcore.bench.overhead import measure_overhead
    from vcore.config import load_config, parse_set
    from vcore.config.cli_options import config_from_cli

    chosen = [] if policy is None else [f"scheduler.policy={policy}"]
    overrides = dict(parse_set([*(set_ or []), *chosen]))
    if plugins:
        tree, _ = config_from_cli(None, set_ or [], plugins)
        overrides |= {"plugins.load": tree.plugins.load, "plugins.disable": tree.plugins.disable}
    with _report("overhead", as_json) as report:
        result = measure_overhead(
            num_requests=num_requests,
            cached_blocks=cached_blocks,
            steps=steps,
            waiting=waiting,
            overrides=overrides,
            profile=profile,
        )
        if eviction:
            rows = measure_eviction(load_config(None, overrides), eviction, num_blocks=eviction_blocks)
            result["eviction"] = rows if as_json else {row["eviction"]: row["us_per_event"] for row in rows}
        report(result)


app.command()(kernels)
app.command()(serve)


def _config(
    config: Path | None,
    set_: list[str] | None,
    plugins: list[str] | None,
    model: str | None,
    moe_routing: str | None = None,
) -> Any:
    from vcore.config.cli_options import config_from_cli

    routing = [] if moe_routing is None else [f"model.moe_routing={moe_routing}"]
    return config_from_cli(config, [*(set_ or []), *routing], plugins or [], model)


@contextmanager
def _report(title: str, as_json: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What to hand the result to. Whatever else is printed meanwhile stays out of the JSON."""
    from vcore.cli.output import reserved_stdout

    with reserved_stdout(as_json) as emit:
        yield emit if as_json else lambda result: _print_table(title, result)


def _print_table(title: str, result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, show_header=False)
    for key, value in result.items():
        if isinstance(value, dict):
            value = "  ".join(f"{name} {_short(number)}" for name, number in value.items())
        elif isinstance(value, list):
            continue
        table.add_row(key, _short(value))
    Console().print(table)


def _short(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
