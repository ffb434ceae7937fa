"""``vcore config``: the schema of configuration files, what a configuration says, and what it comes to here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vcore.cli.model_text import cache_line, outline_as_dict, weights_line
from vcore.cli.output import reserved_stdout
from vcore.cli.shared_options import Config, Json, Model, Plugins, Set
from vcore.errors import VcoreError

if TYPE_CHECKING:
    from vcore.config import EngineConfig
    from vcore.engine.resolve import Resolution
    from vcore.plugins import Catalog

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Show, explain and validate a configuration.")


@app.command("schema")
def print_schema(config: Config = None, set_: Set = None, plugins: Plugins = None, as_json: Json = False) -> None:
    """The JSON schema of configuration files, with the options of every plugin that is installed.

    It is JSON with or without `--json`. Name the file that it is saved to as `$schema` at the top of a
    configuration, and editors complete and check it.
    """
    from vcore.config import schema

    with reserved_stdout(True) as emit:
        _, catalog, _ = _load(config, set_, plugins)
        emit(schema(catalog))


@app.command()
def show(
    config: Config = None, model: Model = None, set_: Set = None, plugins: Plugins = None, as_json: Json = False
) -> None:
    """The whole configuration as it would be used, defaults included, secrets masked; `auto` stays `auto`."""
    from vcore.config import dump

    with reserved_stdout(as_json) as emit:
        chosen, catalog, _ = _load(config, set_, plugins, model)
        tree = dump(chosen, catalog)
        if as_json:
            emit(tree)
        else:
            typer.echo(_yaml(tree), nl=False)


@app.command()
def explain(
    config: Config = None, model: Model = None, set_: Set = None, plugins: Plugins = None, as_json: Json = False
) -> None:
    """What every `auto` becomes on this machine and why, with what was rejected and the reasons. Fetches nothing."""
    with reserved_stdout(as_json) as emit:
        resolution, _ = _resolve_offline(*_load(config, set_, plugins, model))
        if as_json:
            emit({"decisions": [one.to_dict() for one in resolution.decisions], **_outline(resolution)})
        else:
            _print_decisions(resolution)


@app.command()
def validate(
    config: Config = None,
    model: Model = None,
    set_: Set = None,
    plugins: Plugins = None,
    portable: Annotated[bool, typer.Option("--portable", help="Without the target's hardware and model.")] = False,
    as_json: Json = False,
) -> None:
    """Check a configuration: against this machine and the model's files, or with --portable by itself.

    Fetches nothing and loads no weights. Exit status 0 if it is valid.
    """
    with reserved_stdout(as_json) as emit:
        try:
            checked, unchecked = _validate(config, model, set_, plugins, portable)
        except VcoreError as error:
            if as_json:
                emit({"valid": False, "portable": portable, "error": str(error)})
            raise
        if as_json:
            emit({"valid": True, "portable": portable, "checked": checked, "unchecked": unchecked})
            return
        typer.echo(f"{config or 'the configuration'} is valid. Checked: {', '.join(checked)}.")
        if unchecked:
            typer.echo(f"Not checked: {', '.join(unchecked)}.")


@app.command()
def lock(
    config: Config = None,
    model: Model = None,
    set_: Set = None,
    plugins: Plugins = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it there.")] = None,
) -> None:
    """What the configuration comes to here, as JSON: without `auto`, and with each plugin's distribution, version,
    file hash and options. Fetches nothing."""
    import json

    with reserved_stdout(True) as emit:
        resolution, catalog = _resolve_offline(*_load(config, set_, plugins, model))
        locked = _locked(resolution, catalog)
        if output is None:
            emit(locked)
        else:
            output.write_text(json.dumps(locked, indent=2) + "\n", encoding="utf-8")
            print(f"wrote {output}", file=sys.stderr)


def _load(
    config: Path | None, set_: list[str] | None, plugins: list[str] | None, model: str | None = None
) -> tuple[EngineConfig, Catalog, Path | None]:
    from vcore.config.cli_options import config_from_cli
    from vcore.plugins.discovery import discover

    chosen, base_dir = config_from_cli(config, set_ or [], plugins or [], model)
    catalog = discover(chosen.plugins, base_dir=base_dir)
    return chosen, catalog, base_dir


def _resolve_offline(chosen: EngineConfig, catalog: Catalog, base_dir: Path | None) -> tuple[Resolution, Catalog]:
    """Resolve without a download: a command that only tells something must not take 100 MB to do so."""
    from vcore.engine.resolve import resolve
    from vcore.errors import DownloadError

    catalog.require()
    try:
        return resolve(chosen, catalog, base_dir=base_dir, offline=True), catalog
    except DownloadError as error:
        if not chosen.model.offline:
            error.add_note(f"this command fetches nothing; `vcore pull {chosen.model.path}` fetches the model")
        raise


def _validate(
    config: Path | None, model: str | None, set_: list[str] | None, plugins: list[str] | None, portable: bool
) -> tuple[list[str], list[str]]:
    """What was checked, and what was not."""
    chosen, catalog, base_dir = _load(config, set_, plugins, model)
    if not portable:
        _resolve_offline(chosen, catalog, base_dir)
        checked = ["keys and values", "plugins and their options", "the device", "the model's files and architecture"]
        return checked, ["whether memory suffices"]
    from vcore.engine.resolve import check_portable

    report = check_portable(chosen, catalog, base_dir=base_dir)
    return list(report.checked), list(report.unchecked)


def _locked(resolution: Resolution, catalog: Catalog) -> dict[str, Any]:
    from vcore.config import dump
    from vcore.engine.resolve import resolved_plugins
    from vcore.version import __version__

    tree = dump(resolution.config, catalog)
    return {"vcore": __version__, "config": tree, **resolved_plugins(resolution, catalog).as_dict()}


def _yaml(tree: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _print_decisions(resolution: Resolution) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title="What every auto became")
    table.add_column("key", no_wrap=True)
    table.add_column("value", overflow="fold", max_width=24)
    table.add_column("why", overflow="fold")
    for decision in resolution.decisions:
        why = [decision.why]
        why += [f"not {candidate}: {'; '.join(reasons)}" for candidate, reasons in decision.rejected]
        table.add_row(decision.key, Text(str(decision.value)), Text("\n".join(why)))
    console = Console()
    console.print(table)
    if resolution.outline is None:
        console.print("Weights and KV cache: known once the model is loaded.", highlight=False)
        return
    config, ranks = resolution.config, resolution.config.runtime.tensor_parallel_size
    console.print(weights_line(resolution.outline, config.model.dtype, ranks), highlight=False, soft_wrap=True)
    length, block_size, chunk = resolution.max_model_len, resolution.block_size, resolution.max_chunk
    console.print(cache_line(resolution.outline, block_size, length, chunk, ranks), highlight=False, soft_wrap=True)


def _outline(resolution: Resolution) -> dict[str, Any]:
    if resolution.outline is not None:
        return outline_as_dict(resolution.outline, resolution.block_size)
    return dict.fromkeys(("num_parameters", "weight_bytes", "kv_bytes_per_token", "kv_cache"))
