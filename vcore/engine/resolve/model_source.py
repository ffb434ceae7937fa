"""From `model.path`, as the user wrote it, to files on this machine: which source, and what it fetched."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from vcore.cache_dir import model_cache_dir
from vcore.config.models import AUTO, PluginChoice
from vcore.engine.resolve.lookup import usable
from vcore.errors import ModelNotFoundError, PluginConflictError, PluginNotFoundError
from vcore.interfaces.sources import ModelSource, ModelSourceContext, ProgressCallback
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.specs import ModelSourceSpec, PluginKind
from vcore.suggestions import did_you_mean

__all__ = ["ChosenSource", "choose_source", "create_source", "fetch_model", "short_names"]

_FILE_SCHEME = "file"
_EXPLICIT = ("./", "../", "~", "/", ".\\", "..\\")
"""How a path begins that can be nothing else."""


@dataclass(frozen=True, slots=True)
class ChosenSource:
    """Which source supplies a model, and under which name."""

    entry: CatalogEntry
    name: str
    """What `ModelSource.fetch` is given."""
    why: str
    on_disk: bool
    """Whether it is a path that exists, so that nothing has to be fetched."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """For the source."""


def choose_source(
    path: str, catalog: Catalog, base_dir: Path | None = None, *, source: PluginChoice = AUTO
) -> ChosenSource:
    """The source for `path`: by its scheme, as a path that exists, as a short name, or by a source's pattern.

    Args:
        path: `model.path`.
        catalog: where sources are looked up.
        base_dir: a relative path is looked for here first, then in the working directory.
        source: `model.source`; a source that is named is taken, whatever `path` looks like.

    Raises:
        ModelNotFoundError: no source knows it; the message has the short names and the possible forms.
        PluginError: the source is broken, or several claim the name.
    """
    scheme, separator, rest = path.partition("://")
    if not source.is_auto:
        entry = catalog.find(PluginKind.MODEL_SOURCE, source.name)
        schemes = cast(ModelSourceSpec, entry.spec).schemes
        name = rest if separator and scheme in schemes else path
        if _FILE_SCHEME in schemes and not separator:
            name = str(_existing(path, base_dir) or path)
        return ChosenSource(entry, name, "model.source names it", on_disk=False, options=source.options)
    if separator:
        return _by_scheme(scheme, rest, path, catalog)
    existing = _existing(path, base_dir)
    if existing is not None:
        entry = catalog.find_by_key(PluginKind.MODEL_SOURCE, _FILE_SCHEME, field="schemes")
        return ChosenSource(entry, str(existing), f"{existing} exists", on_disk=True)
    if path.startswith(_EXPLICIT) or Path(path).is_absolute():
        raise ModelNotFoundError(f"model.path: there is no file or folder {path!r} (working directory {Path.cwd()})")
    if path in short_names(catalog):
        entry = catalog.find_by_key(PluginKind.MODEL_SOURCE, path, field="models")
        return ChosenSource(entry, path, f"{path!r} is a short name that {entry.address} supplies", on_disk=False)
    return _by_pattern(path, catalog)


def fetch_model(
    chosen: ChosenSource,
    catalog: Catalog,
    *,
    offline: bool,
    progress: ProgressCallback | None = None,
    from_file: Path | None = None,
) -> Path:
    """The folder, or single file, of the model, fetched if it is not on this machine yet.

    Args:
        chosen: the source and the name.
        catalog: creates the source.
        offline: fetch nothing.
        progress: told of a download.
        from_file: a local archive to take the model from.

    Raises:
        ModelNotFoundError: the source has no such model.
        DownloadError: it could not be fetched whole.
    """
    return create_source(chosen, catalog, offline=offline, progress=progress).fetch(chosen.name, from_file=from_file)


def create_source(
    chosen: ChosenSource, catalog: Catalog, *, offline: bool, progress: ProgressCallback | None = None
) -> ModelSource:
    """The source itself, with its options, to fetch from and to ask; arguments as of `fetch_model`."""
    context = ModelSourceContext(cache_dir=model_cache_dir(), progress=progress, offline=offline)
    return cast(ModelSource, catalog.create(chosen.entry, options=chosen.options, context=context))


def short_names(catalog: Catalog) -> list[str]:
    """Every short name that some source supplies."""
    return sorted({name for _, spec in _sources(catalog) for name in spec.models})


def _sources(catalog: Catalog) -> Sequence[tuple[CatalogEntry, ModelSourceSpec]]:
    return [(entry, cast(ModelSourceSpec, entry.spec)) for entry in usable(catalog, PluginKind.MODEL_SOURCE)]


def _existing(path: str, base_dir: Path | None) -> Path | None:
    """The absolute path of the file or folder that `path` names, if there is one."""
    expanded = os.path.expanduser(path)  # unlike pathlib's, neither this nor exists() raises for any text
    for folder in (base_dir or Path.cwd(), Path.cwd()):
        if os.path.exists(folder / expanded):
            return Path(os.path.abspath(folder / expanded))
    return None


def _by_scheme(scheme: str, name: str, path: str, catalog: Catalog) -> ChosenSource:
    try:
        entry = catalog.find_by_key(PluginKind.MODEL_SOURCE, scheme, field="schemes")
    except PluginNotFoundError as error:
        schemes = sorted({known for _, spec in _sources(catalog) for known in spec.schemes})
        raise ModelNotFoundError(
            f"model.path: found {path!r}, and no model source serves the scheme {scheme!r}"
            f"{did_you_mean(scheme, schemes)}; there are {', '.join(f'{known}://' for known in schemes) or 'none'}"
        ) from error
    return ChosenSource(entry, name, f"{entry.address} serves {scheme}://", on_disk=False)


def _by_pattern(path: str, catalog: Catalog) -> ChosenSource:
    matching = [entry for entry, spec in _sources(catalog) if spec.pattern and re.fullmatch(spec.pattern, path)]
    first = catalog.foremost(matching)
    if len(first) > 1:
        choices = [f"{cast(ModelSourceSpec, entry.spec).schemes[0]}://{path}" for entry in first]
        raise PluginConflictError(
            f"model.path: {path!r} could come from {' or '.join(entry.address for entry in first)}; "
            f"write {' or '.join(choices)}"
        )
    if not first:
        raise _not_found(path, catalog)
    return ChosenSource(first[0], path, f"{path!r} has the form of a name of {first[0].address}", on_disk=False)


def _not_found(path: str, catalog: Catalog) -> ModelNotFoundError:
    names = short_names(catalog)
    schemes = sorted({known for _, spec in _sources(catalog) for known in spec.schemes})
    forms = [
        "the path of a folder or file that exists",
        f"a short name ({', '.join(names) or 'no source supplies any'})",
        f"SCHEME://NAME ({', '.join(f'{known}://' for known in schemes) or 'no source is installed'})",
    ]
    patterns = [f"{entry.name}: {spec.pattern}" for entry, spec in _sources(catalog) if spec.pattern]
    if patterns:
        forms.append(f"a name of the form of a source ({'; '.join(patterns)})")
    return ModelNotFoundError(
        f"model.path: found {path!r}, which names no model{did_you_mean(path, names)}; expected " + ", or ".join(forms)
    )
