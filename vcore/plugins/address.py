"""Addresses of plugins: ``NAME``, ``NAME@DISTRIBUTION``, and the same with ``KIND/`` before it."""

from __future__ import annotations

from dataclasses import dataclass

from vcore.errors import ConfigError
from vcore.plugins.distributions import canonical_name
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.specs import PluginKind
from vcore.suggestions import did_you_mean

__all__ = ["Address", "parse_kind"]


def parse_kind(text: str) -> PluginKind:
    """The kind that `text` names.

    Raises:
        ConfigError: there is no such kind.
    """
    try:
        return PluginKind(text)
    except ValueError:
        kinds = [kind.value for kind in PluginKind]
        hint = did_you_mean(text, kinds)
        raise ConfigError(f"there is no kind of plugin {text!r}{hint}; the kinds are {', '.join(kinds)}") from None


@dataclass(frozen=True, slots=True)
class Address:
    """Which plugin is meant."""

    name: str
    distribution: str | None = None
    """None means any."""
    kind: PluginKind | None = None
    """None where the place where it is written implies the kind."""

    @classmethod
    def parse(cls, text: str, *, kind: PluginKind | None = None) -> Address:
        """Read ``NAME[@DISTRIBUTION]``; without `kind` also ``KIND/NAME[@DISTRIBUTION]``.

        Raises:
            ConfigError: the kind does not exist, or a part is empty.
        """
        rest = text
        if kind is None and "/" in text.partition("@")[0]:
            kind_text, _, rest = text.partition("/")
            kind = parse_kind(kind_text)
        name, separator, distribution = rest.partition("@")
        if not name or (separator and not distribution):
            raise ConfigError(f"{text!r} is not a plugin's address; expected NAME or NAME@DISTRIBUTION")
        return cls(name=name, distribution=distribution or None, kind=kind)

    def names_distribution(self, entry: CatalogEntry) -> bool:
        """Whether the entry comes from the distribution, or file, that the address asks for."""
        if self.distribution is None:
            return True
        if self.distribution in (entry.origin.path, entry.origin.name) and entry.origin.path is not None:
            return True
        return canonical_name(self.distribution) == canonical_name(entry.distribution)

    def matches(self, entry: CatalogEntry) -> bool:
        """Whether the address means the entry."""
        return (
            entry.name == self.name
            and (self.kind is None or entry.kind is self.kind)
            and self.names_distribution(entry)
        )
