"""``vcore models``: which architectures are served, and whether a model can be, before anything of it is loaded."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from vcore.cli.model_text import cache_line, mebibytes, outline_as_dict, weights_line
from vcore.cli.output import print_table, reserved_stdout
from vcore.cli.shared_options import Config, Json, Plugins, Set

if TYPE_CHECKING:
    from vcore.engine.model_check import ModelReport
    from vcore.plugins import CatalogEntry

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="List architectures; check whether a model can be served.")

Path = Annotated[str, typer.Argument(metavar="PATH", help="A folder, a file, or a name, as model.path takes it.")]

_WEIGHTS = {
    "fit": "the checkpoint's tensors fit, by name and shape",
    "misfit": "the checkpoint's tensors do not fit",
    "missing": "the weights are not there",
    "made up": "the weights are made up",
    "unknown": "whether the checkpoint's tensors fit is not known",
}


@app.command("list")
def list_models(config: Config = None, set_: Set = None, plugins: Plugins = None, as_json: Json = False) -> None:
    """Every architecture that is served, by which plugin, and what its checkpoints may have."""
    from vcore.config.cli_options import config_from_cli
    from vcore.plugins import PluginKind, discover

    with reserved_stdout(as_json) as emit:
        tree, base_dir = config_from_cli(config, set_ or [], plugins or [])
        catalog = discover(tree.plugins, base_dir=base_dir)
        entries = [entry for entry in catalog.entries if entry.kind is PluginKind.MODEL]
        rows = [row for entry in entries if entry.ok for row in _rows(entry)]
        rows.sort(key=lambda row: (row["architecture"], row["plugin"]))
        if as_json:
            emit({"models": rows})
            return
        cells = [(row["architecture"], row["plugin"], ", ".join(row["features"]), row["summary"]) for row in rows]
        print_table(("ARCHITECTURE", "PLUGIN", "FEATURES", ""), cells)
        unusable = [entry.address for entry in entries if not entry.ok]
        if unusable:
            print(f"not usable: {', '.join(unusable)}; `vcore plugins list` says why", file=sys.stderr)


@app.command()
def check(path: Path, config: Config = None, set_: Set = None, plugins: Plugins = None, as_json: Json = False) -> None:
    """Whether a model can be served here, by which plugin, what it takes, and everything that speaks against it.

    Fetches nothing and reads no weights, only their names and shapes. Exit status 0 if it can be served, 1 if not.
    """
    from vcore.config.cli_options import config_from_cli
    from vcore.engine.model_check import check_model
    from vcore.plugins import discover

    with reserved_stdout(as_json) as emit:
        tree, base_dir = config_from_cli(config, set_ or [], plugins or [], path)
        catalog = discover(tree.plugins, base_dir=base_dir)
        catalog.require()
        report = check_model(tree, catalog, base_dir=base_dir)
        if as_json:
            emit(report.to_dict() | _outline(report))
        else:
            _print_report(report)
    if not report.servable:
        raise typer.Exit(1)


def _rows(entry: CatalogEntry) -> list[dict[str, Any]]:
    from vcore.plugins import ModelSpec

    spec = cast(ModelSpec, entry.spec)
    return [
        {
            "architecture": architecture,
            "plugin": entry.address,
            "distribution": entry.distribution,
            "version": entry.version,
            "features": sorted(spec.features),
            "quantizations": sorted(spec.quantizations),
            "summary": spec.summary,
        }
        for architecture in spec.architectures
    ]


def _outline(report: ModelReport) -> dict[str, Any]:
    if report.outline is None or report.block_size is None:
        return dict.fromkeys(("num_parameters", "weight_bytes", "kv_bytes_per_token", "kv_cache"))
    return outline_as_dict(report.outline, report.block_size)


def _print_report(report: ModelReport) -> None:
    where = "" if report.path is None or str(report.path) == report.name else f" ({report.path})"
    print(f"{report.name}{where} {'can be served.' if report.servable else 'cannot be served:'}")
    for reason in report.reasons:
        print(f"  - {reason}")
    rows = [(label, text) for label, text in _lines(report) if text]
    for label, text in rows:
        print(f"{label:<13}{text}")
    for note in report.notes:
        print(f"note: {note}")


def _lines(report: ModelReport) -> list[tuple[str, str]]:
    return [
        ("architecture", ", ".join(report.architectures)),
        ("plugin", report.plugin or ""),
        ("files", "" if report.loader is None else f"{report.loader}; {_WEIGHTS[report.weights]}"),
        ("runs on", "" if report.device is None else f"{report.device}, up to {report.max_model_len or 0:,} tokens"),
        *_attention_lines(report),
        *_memory_lines(report),
    ]


def _attention_lines(report: ModelReport) -> list[tuple[str, str]]:
    if report.attention is None:
        return []
    lines = [("attention", f"{report.attention.value}: {report.attention.why}")]
    rejected = [f"not {candidate}: {'; '.join(reasons)}" for candidate, reasons in report.attention.rejected]
    return [*lines, *(("", line) for line in rejected)]


def _memory_lines(report: ModelReport) -> list[tuple[str, str]]:
    outline, memory = report.outline, report.memory
    if outline is None:
        return []
    lines = [("", weights_line(outline, str(report.dtype).removeprefix("torch."), report.ranks))]
    if report.block_size is not None and report.max_model_len is not None and report.max_chunk is not None:
        cache = cache_line(outline, report.block_size, report.max_model_len, report.max_chunk, report.ranks)
        lines.append(("", cache))
    if memory is not None and outline.kv_cache_specs:
        lines.append(
            (
                "",
                f"Room: {mebibytes(memory.cache_bytes)} for the cache beside the weights, before what steps take: "
                f"{memory.max_cached_tokens:,} tokens, {memory.num_requests:,} requests of the full length.",
            )
        )
    return [("memory" if index == 0 else "", text) for index, (_, text) in enumerate(lines)]
