"""What of the contracts is on its way out. One table; a plugin that still uses an item is told so once."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from vcore.plugins.distributions import CORE_DISTRIBUTION
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.specs import PluginKind

__all__ = ["DEPRECATIONS", "Deprecation", "warn_of_deprecations"]


@dataclass(frozen=True, slots=True)
class Deprecation:
    """A method of an interface, or a field of a spec, that a later version removes."""

    kind: PluginKind
    name: str
    """The method that a plugin overrides, or the field of its spec that it sets."""
    replacement: str
    removed_in: str
    """The version of vcore-engine that removes it."""


DEPRECATIONS: tuple[Deprecation, ...] = ()
"""Everything that is deprecated at present."""

_warned: set[tuple[str, PluginKind, str]] = set()


def warn_of_deprecations(entry: CatalogEntry, instance: object, interface: type) -> None:
    """Warn, once a distribution and item, of what the plugin uses that will be removed."""
    for item in DEPRECATIONS:
        key = (entry.distribution, item.kind, item.name)
        if item.kind is not entry.kind or key in _warned or not _uses(entry, instance, interface, item.name):
            continue
        _warned.add(key)
        warnings.warn(
            f"{entry.title} uses {item.kind}.{item.name}, which {CORE_DISTRIBUTION} {item.removed_in} removes; "
            f"use {item.replacement} instead",
            FutureWarning,
            stacklevel=2,
        )


def _uses(entry: CatalogEntry, instance: object, interface: type, name: str) -> bool:
    if hasattr(interface, name):
        return getattr(type(instance), name, None) is not getattr(interface, name)
    field = getattr(type(entry.spec), "__dataclass_fields__", {}).get(name)
    return field is not None and getattr(entry.spec, name) != field.default
