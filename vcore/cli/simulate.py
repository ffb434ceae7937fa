"""``vcore simulate``: recorded traffic, served without a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vcore.cli.output import reserved_stdout
from vcore.cli.shared_options import Config, Json, Plugins, Set
from vcore.errors import ConfigError

__all__ = ["command"]


def command(
    trace: Annotated[Path, typer.Option("--trace", metavar="FILE", help="Recorded requests.")],
    trace_format: Annotated[str, typer.Option("--trace-format", help="auto, mooncake, azure, aiperf or csv.")] = "auto",
    cache_only: Annotated[
        bool, typer.Option("--cache-only", help="The prefix cache alone, requests one after another.")
    ] = False,
    num_blocks: Annotated[
        list[int] | None,
        typer.Option("--num-blocks", min=1, metavar="C", help="Size of the cache; may be given again."),
    ] = None,
    eviction: Annotated[
        list[str] | None, typer.Option("--eviction", metavar="POLICY", help="May be given again.")
    ] = None,
    config: Config = None,
    set_: Set = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """What share of prompt blocks an eviction policy finds in the cache, and what the best possible one would."""
    from vcore.config.cli_options import config_from_cli
    from vcore.simulate import report_cache
    from vcore.traces import read_trace

    if not cache_only:
        raise ConfigError("vcore simulate replays the cache alone so far: add --cache-only")
    if not num_blocks:
        raise ConfigError("--cache-only needs the size of the cache: add --num-blocks C")
    tree, base_dir = config_from_cli(config, set_ or [], plugins or [])
    with reserved_stdout(as_json) as emit:
        report = report_cache(read_trace(trace, trace_format), num_blocks, tree, eviction or (), base_dir)
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
