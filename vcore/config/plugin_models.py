"""The options models of the plugins that a configuration may choose, as far as the schema and `dump` need them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel

if TYPE_CHECKING:
    from vcore.plugins.entry import CatalogEntry

__all__ = ["OptionsCatalog", "choices", "model_for"]


class OptionsCatalog(Protocol):
    """The part of `vcore.plugins.Catalog` that is used here."""

    @property
    def entries(self) -> Sequence[CatalogEntry]:
        """All plugins that are there, and those that should be and are not."""
        ...

    def options_model(self, entry: CatalogEntry) -> type[BaseModel] | None:
        """The options model of `entry`, imported if need be; None if it takes no options.

        Raises:
            PluginError: it cannot be imported.
        """
        ...


def choices(catalog: OptionsCatalog, kind: str) -> Iterator[tuple[str, CatalogEntry]]:
    """Every name that may be written to choose a plugin of `kind`, with the plugin.

    Weight loaders are chosen by file format, all others by name.
    """
    for entry in catalog.entries:
        if entry.kind is None or entry.kind.value != kind or not entry.ok:
            continue
        for name in getattr(entry.spec, "formats", ()) or (entry.name,):
            yield name, entry


def model_for(catalog: OptionsCatalog, kind: str, name: str) -> type[BaseModel] | None:
    """The options model of the plugin that ``NAME`` or ``NAME@DISTRIBUTION`` chooses, or None if that is not clear."""
    from vcore.errors import PluginError

    wanted, _, distribution = name.partition("@")
    found = [
        entry for known, entry in choices(catalog, kind) if known == wanted and distribution in ("", entry.distribution)
    ]
    if len(found) != 1:
        return None
    try:
        return catalog.options_model(found[0])
    except PluginError:
        return None
