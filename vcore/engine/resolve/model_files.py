"""Which weight loader reads a model's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from vcore.config import ModelConfig
from vcore.engine.resolve.decisions import Decision
from vcore.engine.resolve.lookup import selector, usable
from vcore.errors import ModelNotFoundError, PluginConflictError
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.specs import PluginKind, WeightLoaderSpec

__all__ = ["choose_loader"]

_MAX_LISTED = 12
"""File names that a message repeats."""


def choose_loader(config: ModelConfig, path: Path, catalog: Catalog) -> tuple[CatalogEntry, Decision | None]:
    """The weight loader: of the format that is configured, or of the files at `path`, by their suffixes.

    Raises:
        ModelNotFoundError: `path` holds no file that any loader knows.
        PluginError: the loader is missing, broken or ambiguous.
    """
    if not config.load_format.is_auto:
        return catalog.find_by_key(PluginKind.WEIGHT_LOADER, config.load_format.name), None
    files = _files(path)
    loaders = usable(catalog, PluginKind.WEIGHT_LOADER)
    found = {entry.address: _known(entry, files) for entry in loaders}
    first = catalog.foremost([entry for entry in loaders if found[entry.address]])
    if not first:
        raise _no_weights(path, files, loaders)
    if len(first) > 1:
        formats = [f"`model.load_format: {_format(entry)}`" for entry in first]
        raise PluginConflictError(
            f"{path}: {' and '.join(entry.address for entry in first)} both know files that are there, and have the "
            f"same rank; write {' or '.join(formats)}"
        )
    taken = first[0]
    rejected = [(entry.address, (_why_not(entry, found[entry.address]),)) for entry in loaders if entry is not taken]
    why = f"{path} has {_listed(found[taken.address])}"
    value = selector(catalog, taken, _format(taken))
    return taken, Decision(key="model.load_format", value=value, why=why, rejected=tuple(rejected))


def _files(path: Path) -> list[str]:
    """The names of the files at `path`: its own if it is one."""
    if path.is_file():
        return [path.name]
    if not path.is_dir():
        raise ModelNotFoundError(f"{path}: there is no such file or folder; its model source said that it is there")
    return sorted(child.name for child in path.iterdir() if child.is_file())


def _known(entry: CatalogEntry, files: Sequence[str]) -> list[str]:
    suffixes = cast(WeightLoaderSpec, entry.spec).suffixes
    return [name for name in files if suffixes and name.lower().endswith(suffixes)]


def _format(entry: CatalogEntry) -> str:
    return cast(WeightLoaderSpec, entry.spec).formats[0]


def _why_not(entry: CatalogEntry, known: Sequence[str]) -> str:
    suffixes = cast(WeightLoaderSpec, entry.spec).suffixes
    if known:
        return f"{_listed(known)} would do, but another loader comes first"
    return f"no file ends in {', '.join(suffixes)}" if suffixes else "it is used only when it is named"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MAX_LISTED])
    return f"{shown} and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else shown


def _no_weights(path: Path, files: Sequence[str], loaders: Sequence[CatalogEntry]) -> ModelNotFoundError:
    known = [
        f"{suffix} ({_format(entry)})" for entry in loaders for suffix in cast(WeightLoaderSpec, entry.spec).suffixes
    ]
    endings = ", ".join(known) or "nothing, for no loader is installed"
    return ModelNotFoundError(
        f"{path}: found {_listed(files) or 'no files'}, expected weights that end in {endings}. "
        "Complete the folder, name a loader's format with model.load_format, or write `model.load_format: dummy` for "
        "made-up weights, which need only config.json."
    )
