"""The resolved set: which plugins an engine was composed from, as plain data.

It goes to the workers, which refuse to run anything else, into error reports, and into the lock file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from vcore.errors import PluginError
from vcore.plugins.entry import CatalogEntry, OriginKind
from vcore.plugins.specs import PluginKind

if TYPE_CHECKING:
    from vcore.config import PluginOptions

__all__ = ["ResolvedPlugin", "ResolvedSet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedPlugin:
    """One plugin that an engine is composed from."""

    kind: str
    name: str
    distribution: str
    version: str | None
    origin: str
    """The way in: ``entry point``, ``file``, ``module`` or ``object``."""
    path: str | None = None
    sha256: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """As JSON data, secrets masked."""

    @classmethod
    def of(cls, entry: CatalogEntry, options: Mapping[str, Any]) -> ResolvedPlugin:
        """The data of `entry`, created with `options`."""
        assert entry.kind is not None
        return cls(
            kind=entry.kind.value,
            name=entry.name,
            distribution=entry.distribution,
            version=entry.version,
            origin=entry.origin.how.value,
            path=entry.origin.path,
            sha256=entry.origin.sha256,
            options=dict(options),
        )

    @classmethod
    def selected(cls, entry: CatalogEntry, options: PluginOptions | None) -> ResolvedPlugin:
        """The data of `entry`, to be created with `options`."""
        return cls.of(entry, {} if options is None else options.model_dump(mode="json"))

    def difference(self, entry: CatalogEntry) -> str | None:
        """How `entry` differs from what this was created from; None if it does not."""
        if entry.version != self.version:
            return f"version {entry.version} instead of {self.version}"
        if entry.origin.sha256 != self.sha256:
            return f"{entry.origin.path} has changed: sha256 {entry.origin.sha256} instead of {self.sha256}"
        return None if entry.ok else f"{entry.status.value}: {entry.reason}"


@dataclass(frozen=True, slots=True)
class ResolvedSet:
    """The plugins of one engine, in the order of kind, name and distribution."""

    plugins: tuple[ResolvedPlugin, ...]

    @classmethod
    def of(cls, plugins: Iterable[ResolvedPlugin]) -> ResolvedSet:
        """The set of `plugins`; one that was created several times counts once."""
        unique = {(one.kind, one.name, one.distribution, one.path): one for one in plugins}
        return cls(tuple(unique[key] for key in sorted(unique, key=repr)))

    def as_dict(self) -> dict[str, Any]:
        """JSON data; `from_dict` reads it back."""
        return {"plugins": [asdict(one) for one in self.plugins]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ResolvedSet:
        """The set that `as_dict` wrote."""
        return cls(tuple(ResolvedPlugin(**one) for one in data["plugins"]))

    def require_portable(self) -> None:
        """Refuse plugins that another process cannot load by itself.

        Raises:
            PluginError: some were passed as objects.
        """
        objects = [f"{one.kind}/{one.name}" for one in self.plugins if one.origin == OriginKind.OBJECT.value]
        if objects:
            raise PluginError(
                f"{', '.join(objects)}: passed as an object, but worker processes load plugins by themselves; "
                "move it to a file and name that in the configuration, as `plugins.load: [./my_plugin.py]`"
            )

    def require_same(self, entries: Iterable[CatalogEntry]) -> None:
        """Refuse to run with anything else: for a worker, with what it has found itself.

        Raises:
            PluginError: a plugin of the set is missing among `entries`, or is not the same.
        """
        known = {(entry.kind, entry.name, entry.distribution): entry for entry in entries}
        differences = []
        for one in self.plugins:
            entry = known.get((PluginKind(one.kind), one.name, one.distribution))
            difference = "not found here" if entry is None else one.difference(entry)
            if difference:
                differences.append(f"{one.kind}/{one.name}@{one.distribution}: {difference}")
        if differences:
            listed = "\n  ".join(differences)
            raise PluginError(
                f"these plugins are not those that the engine was composed from:\n  {listed}\n"
                "install the same versions, and use the same files, in every process"
            )
