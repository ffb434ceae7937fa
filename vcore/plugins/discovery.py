"""Discovery: from the installed world and the `plugins` section of the configuration to a `Catalog`.

Entry points are read and imported one at a time, each behind a guard; what goes wrong with one is a
line in the catalog and touches no other. No plugin's code is imported, only registration modules.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vcore.plugins.api_versions import api_problem
from vcore.plugins.catalog import Catalog
from vcore.plugins.distributions import (
    PluginDistribution,
    engine_requirement_problem,
    plugin_distributions,
    requirement_problem,
)
from vcore.plugins.entry import CatalogEntry, EntryStatus, Origin, OriginKind
from vcore.plugins.import_guard import SLOW_IMPORT_S, GuardedRun, describe_exception, run_guarded
from vcore.plugins.origins import (
    Registrant,
    entry_point_registrant,
    loaded_registrant,
    object_registrant,
)
from vcore.plugins.registration import Registration, read_registration
from vcore.plugins.selection_rules import SelectionRules
from vcore.plugins.spec_checks import spec_faults
from vcore.plugins.specs import PluginSpec

if TYPE_CHECKING:
    from vcore.config import PluginsConfig

__all__ = ["discover"]

logger = logging.getLogger(__name__)


def discover(config: PluginsConfig, *, objects: Sequence[object] = (), base_dir: Path | None = None) -> Catalog:
    """Find every plugin.

    Args:
        config: what may be imported, what else to load, and what is preferred.
        objects: plugins without a file: modules, instances or namespaces with hookimpls, specs, lists of specs.
        base_dir: where relative paths in ``config.load`` start: the configuration file's folder; None:
            the current folder.

    Raises:
        ConfigError: ``config.load`` names something that is not there, or ``config.disable`` a kind
            that does not exist.
    """
    rules = SelectionRules(config)
    entries: list[CatalogEntry] = []
    for distribution in plugin_distributions():
        entries.extend(_read_distribution(distribution, rules))
    base = base_dir if base_dir is not None else Path.cwd()
    loaded = {_identity(one): one for one in (loaded_registrant(written, base) for written in config.load)}
    for registrant in [*loaded.values(), *map(object_registrant, objects)]:
        entries.extend(_read(registrant))
    entries = [_judge(entry, rules) for entry in _mark_duplicates(entries)]
    for entry in entries:
        if not entry.ok:
            logger.debug("%s: %s: %s", entry.address, entry.status.value, entry.reason)
    for unmatched in rules.unmatched(entries):
        logger.warning("%s", unmatched)
    return Catalog(entries, prefer=config.prefer, require=config.require)


def _identity(registrant: Registrant) -> str:
    return registrant.origin.path or registrant.origin.name


def _read_distribution(distribution: PluginDistribution, rules: SelectionRules) -> Iterator[CatalogEntry]:
    """The distribution's plugins; its modules are imported only if nothing forbids it."""
    if distribution.error is not None:
        reason = f"its metadata cannot be read: {describe_exception(distribution.error)}; reinstall it"
        yield CatalogEntry(
            kind=None,
            name=distribution.name,
            spec=None,
            distribution=distribution.name,
            version=distribution.version,
            status=EntryStatus.BROKEN,
            reason=reason,
            origin=Origin(how=OriginKind.ENTRY_POINT, name=distribution.name),
            cause=distribution.error,
        )
    excluded = None if distribution.is_core else engine_requirement_problem(distribution)
    for point in dict.fromkeys(distribution.entry_points):
        registrant = entry_point_registrant(distribution, point)
        if forbidden := rules.import_forbidden(distribution, point.name):
            yield _without_spec(registrant, EntryStatus.DISABLED, forbidden)
        elif excluded:
            yield _without_spec(registrant, EntryStatus.INCOMPATIBLE, excluded)
        else:
            yield from _read(registrant)


def _without_spec(registrant: Registrant, status: EntryStatus, reason: str) -> CatalogEntry:
    return CatalogEntry(
        kind=None,
        name=registrant.origin.name,
        spec=None,
        distribution=registrant.distribution,
        version=registrant.version,
        status=status,
        reason=reason,
        origin=registrant.origin,
    )


def _read(registrant: Registrant) -> Iterator[CatalogEntry]:
    """The plugins that a registrant declares, and its faults."""
    run = run_guarded(lambda: read_registration(registrant.open()))
    _report(registrant, run)
    if run.error is not None:
        ended = "ended the process" if isinstance(run.error, SystemExit) else "failed"
        reason = f"importing it {ended}: {describe_exception(run.error)}"
        entry = _without_spec(registrant, EntryStatus.BROKEN, reason)
        yield replace(entry, notes=run.notes, cause=run.error)
    registration = run.value or Registration()
    for fault in registration.faults:
        entry = _without_spec(registrant, EntryStatus.BROKEN, fault.text)
        yield replace(entry, kind=fault.kind, notes=run.notes, cause=fault.cause)
    for spec in registration.specs:
        yield _from_spec(registrant, spec, run)


def _report(registrant: Registrant, run: GuardedRun[Registration]) -> None:
    if run.seconds > SLOW_IMPORT_S:
        logger.warning(
            "plugin %s of %s took %.1f s to import; `plugins.disable` keeps it from being imported",
            registrant.origin,
            registrant.distribution,
            run.seconds,
        )
    if run.output:
        logger.debug("plugin %s of %s wrote: %s", registrant.origin, registrant.distribution, run.output.rstrip())


def _from_spec(registrant: Registrant, spec: PluginSpec, run: GuardedRun[Registration]) -> CatalogEntry:
    own_module = registrant.origin.how in (OriginKind.FILE, OriginKind.MODULE)
    faults = spec_faults(spec, own_module=own_module)
    name = spec.name if isinstance(spec.name, str) and spec.name else registrant.origin.name
    return CatalogEntry(
        kind=spec.kind,
        name=name,
        spec=spec,
        distribution=registrant.distribution,
        version=registrant.version,
        status=EntryStatus.BROKEN if faults else EntryStatus.OK,
        reason="; ".join(faults),
        origin=registrant.origin,
        notes=run.notes,
    )


def _mark_duplicates(entries: Sequence[CatalogEntry]) -> list[CatalogEntry]:
    """Of one distribution, file or object list, no two plugins of a kind may share a name."""
    counts = Counter(_duplicate_key(entry) for entry in entries if entry.spec is not None)
    marked = []
    for entry in entries:
        if entry.ok and counts[_duplicate_key(entry)] > 1:
            origins = sorted({str(other.origin) for other in entries if _duplicate_key(other) == _duplicate_key(entry)})
            reason = (
                f"{entry.distribution} declares {entry.kind}/{entry.name} {counts[_duplicate_key(entry)]} times "
                f"({', '.join(origins)}); its authors must rename or remove all but one"
            )
            entry = replace(entry, status=EntryStatus.DUPLICATE, reason=reason)
        marked.append(entry)
    return marked


def _duplicate_key(entry: CatalogEntry) -> tuple[object, ...]:
    return entry.kind, entry.name, entry.origin.path or entry.distribution, entry.spec is None


def _judge(entry: CatalogEntry, rules: SelectionRules) -> CatalogEntry:
    """The entry with its final status."""
    if hidden := rules.hidden(entry):
        return replace(entry, status=EntryStatus.HIDDEN, reason=hidden)
    if not entry.ok or entry.spec is None:
        return entry
    if problem := api_problem(entry.spec.kind, entry.spec.api, entry.distribution):
        return replace(entry, status=EntryStatus.INCOMPATIBLE, reason=problem)
    problems = [problem for text in entry.spec.requires if (problem := requirement_problem(text))]
    if problems:
        return replace(entry, status=EntryStatus.MISSING_REQUIREMENT, reason="; ".join(problems))
    return entry
