"""What `plugins.allow` and `plugins.disable` say about a distribution, an entry point or a plugin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vcore.plugins.address import Address
from vcore.plugins.distributions import CORE_DISTRIBUTION, PluginDistribution, canonical_name
from vcore.plugins.entry import CatalogEntry
from vcore.suggestions import did_you_mean

if TYPE_CHECKING:
    from vcore.config import PluginsConfig

__all__ = ["SelectionRules"]


class SelectionRules:
    """The part of the configuration that keeps plugins out."""

    def __init__(self, config: PluginsConfig) -> None:
        """
        Raises:
            ConfigError: ``disable`` holds an address whose kind does not exist.
        """
        self._config = config
        self._allow = None if config.allow is None else {canonical_name(name) for name in config.allow}
        self._hide = [Address.parse(text) for text in config.disable if "/" in text]
        self._never_import = [text for text in config.disable if "/" not in text]

    def import_forbidden(self, distribution: PluginDistribution, entry_point: str) -> str | None:
        """Why the entry point must not be imported; None if it may be."""
        canonical = canonical_name(distribution.name)
        for text in self._never_import:
            name, _, owner = text.partition("@")
            if canonical_name(text) == canonical:
                return f"plugins.disable lists the distribution {text!r}"
            if name == entry_point and (not owner or canonical_name(owner) == canonical):
                return f"plugins.disable lists the entry point {text!r}"
        if self._allow is not None and canonical not in self._allow and not distribution.is_core:
            return f"plugins.allow does not list the distribution {distribution.name!r}; add it there to use it"
        return None

    def hidden(self, entry: CatalogEntry) -> str | None:
        """Why the plugin is hidden; None if it is not."""
        for address in self._hide:
            if entry.spec is not None and address.matches(entry):
                return f"plugins.disable hides '{address.kind}/{entry.name}'"
        return None

    def unmatched(self, entries: Sequence[CatalogEntry]) -> Iterator[str]:
        """One sentence for each item that matches nothing, which is most often a typing mistake."""
        distributions = {canonical_name(entry.distribution): entry.distribution for entry in entries}
        entry_points = {entry.origin.name for entry in entries}
        for key, listed in (("allow", self._config.allow or ()), ("prefer", self._config.prefer)):
            for text in listed:
                if canonical_name(text) not in {*distributions, CORE_DISTRIBUTION}:
                    hint = did_you_mean(text, distributions.values())
                    yield f"plugins.{key}: no plugin of a distribution {text!r} is installed{hint}"
        for text in self._never_import:
            name = text.partition("@")[0]
            if canonical_name(text) not in distributions and name not in entry_points:
                hidden = [f"{entry.kind}/{entry.name}" for entry in entries if entry.spec and entry.name == name]
                hint = f"; to hide a plugin write {hidden[0]!r}" if hidden else ""
                hint = hint or did_you_mean(text, [*distributions.values(), *entry_points])
                yield f"plugins.disable: {text!r} is neither a distribution nor an entry point with plugins{hint}"
        for address in self._hide:
            if not any(address.matches(entry) for entry in entries if entry.spec is not None):
                names = [entry.name for entry in entries if entry.kind is address.kind and entry.spec is not None]
                hint = did_you_mean(address.name, names)
                yield f"plugins.disable: there is no {address.kind} {address.name!r} to hide{hint}"
