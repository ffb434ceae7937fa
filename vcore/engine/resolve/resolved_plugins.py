"""`resolved_plugins`: which plugins a resolution selects, as data, before any of them is created."""

from __future__ import annotations

from typing import Any

from vcore.engine.resolve.resolution import Resolution
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.resolved import ResolvedPlugin, ResolvedSet

__all__ = ["resolved_plugins"]


def resolved_plugins(resolution: Resolution, catalog: Catalog) -> ResolvedSet:
    """The selected plugins with their distributions, versions, file hashes and options; secrets are masked.

    Raises:
        PluginOptionsError: an option does not fit, such as a required one of a plugin that ``auto`` chose.
    """
    config = resolution.config
    selected: list[tuple[CatalogEntry, dict[str, Any]]] = [
        (resolution.source_entry, config.model.source.options),
        (resolution.loader_entry, config.model.load_format.options),
        (resolution.model, config.model.plugin.options),
        (resolution.attention, config.attention.backend.options),
        (resolution.eviction, config.cache.eviction.options),
        (resolution.scheduling, config.scheduler.policy.options),
        (resolution.executor, config.executor.options),
    ]
    if resolution.structured_output is not None and config.sampling.structured_output is not None:
        selected.append((resolution.structured_output, config.sampling.structured_output.options))
    chosen = zip(resolution.observers, config.observability.observers, strict=True)
    selected += [(entry, choice.options) for entry, choice in chosen]
    return ResolvedSet.of(ResolvedPlugin.selected(entry, catalog.parse_options(entry, raw)) for entry, raw in selected)
