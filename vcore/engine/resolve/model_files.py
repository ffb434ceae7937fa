"""From a model's files to what they are: the weight loader that reads them, and the plugin of the architecture."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from vcore.config import ModelConfig
from vcore.engine.resolve.decisions import Decision
from vcore.engine.resolve.lookup import selector, usable
from vcore.errors import ModelNotFoundError, PluginConflictError, PluginNotFoundError, UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.specs import ModelSpec, PluginKind, WeightLoaderSpec
from vcore.suggestions import did_you_mean

__all__ = ["choose_loader", "choose_model"]

logger = logging.getLogger(__name__)

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


def choose_model(config: ModelConfig, hf_config: HFConfig, catalog: Catalog) -> tuple[CatalogEntry, Decision | None]:
    """The model plugin: the one that is configured, or the one that serves the architecture in the model's config.

    Raises:
        UnsupportedModelError: no plugin serves it; the message has the closest that are served. Or its weights are
            quantised in a way that the plugin does not list.
        PluginError: the plugin is broken, or several serve it.
    """
    entry, decision = _find_model(config, hf_config, catalog)
    _check_quantization(hf_config, entry)
    return entry, decision


def _check_quantization(hf_config: HFConfig, entry: CatalogEntry) -> None:
    settings = hf_config.get("quantization_config")
    if not settings:
        return
    method = str(settings.get("quant_method", "unnamed")) if isinstance(settings, HFConfig) else str(settings)
    served = cast(ModelSpec, entry.spec).quantizations
    if method not in served:
        raise UnsupportedModelError(
            f"{hf_config.origin}: the weights are quantised (quantization_config.quant_method is {method!r}), and "
            f"{entry.address} loads {', '.join(sorted(served)) or 'no quantised weights'}. Use the model's unquantised "
            "checkpoint or a GGUF file of it, or a model plugin that lists the method."
        )


def _find_model(config: ModelConfig, hf_config: HFConfig, catalog: Catalog) -> tuple[CatalogEntry, Decision | None]:
    architectures = hf_config.architectures
    if not config.plugin.is_auto:
        entry = catalog.find(PluginKind.MODEL, config.plugin.name)
        if not set(architectures) & set(cast(ModelSpec, entry.spec).architectures):
            logger.warning(
                "model.plugin: %s does not list %s, but was named, and is used",
                entry.address,
                " or ".join(architectures) or "any architecture of this model",
            )
        return entry, None
    for architecture in architectures:
        try:
            entry = catalog.find_by_key(PluginKind.MODEL, architecture)
        except PluginNotFoundError:
            continue
        return entry, Decision(key="model.plugin", value=selector(catalog, entry), why=f"it serves {architecture}")
    raise _unsupported(hf_config, catalog)


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


def _unsupported(hf_config: HFConfig, catalog: Catalog) -> UnsupportedModelError:
    supported = sorted(
        {name for entry in usable(catalog, PluginKind.MODEL) for name in cast(ModelSpec, entry.spec).architectures}
    )
    served = ", ".join(supported) or "none"
    remedy = (
        "A model plugin adds one (docs/plugins.md says how; load it with `-p FILE` or install it); model.plugin uses "
        "one that serves a similar architecture."
    )
    if not hf_config.architectures:
        return UnsupportedModelError(
            f"{hf_config.origin} names no architecture ('architectures'); served are: {served}. {remedy}"
        )
    names = " or ".join(hf_config.architectures)
    hint = did_you_mean(hf_config.architectures[0], supported)
    return UnsupportedModelError(
        f"no installed model plugin serves the architecture {names}{hint}; served are: {served}. {remedy}"
    )
