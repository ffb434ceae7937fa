"""One line of the catalog: a plugin that is there, or something that should have been one and why it is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from vcore.plugins.specs import PluginKind, PluginSpec

__all__ = ["CatalogEntry", "EntryStatus", "Origin", "OriginKind"]


class EntryStatus(StrEnum):
    """Whether a plugin can be selected, and if not, why not."""

    OK = "ok"
    BROKEN = "broken"
    """It could not be imported, or its registration is wrong."""
    DUPLICATE = "duplicate"
    """Its distribution declares the same kind and name twice; no address tells them apart."""
    INCOMPATIBLE = "incompatible"
    """It was written for a contract, or requires a version of vcore, that this one is not."""
    MISSING_REQUIREMENT = "missing_requirement"
    """A package that it requires is not installed, or is of the wrong version."""
    HIDDEN = "hidden"
    """``plugins.disable`` names it as ``kind/name``."""
    DISABLED = "disabled"
    """``plugins.disable`` or ``plugins.allow`` kept it from being imported."""


class OriginKind(StrEnum):
    """The ways in."""

    ENTRY_POINT = "entry point"
    FILE = "file"
    MODULE = "module"
    OBJECT = "object"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """How a plugin came in."""

    how: OriginKind
    name: str
    """The entry point's name, the file or module as it was written, or the object's type."""
    module: str | None = None
    """The registration module, by which `sys.modules` has it; None for objects and for what was not imported."""
    path: str | None = None
    """The file's absolute path; only for files and modules that were loaded without packaging."""
    sha256: str | None = None
    """The file's SHA-256, in hexadecimal."""

    def __str__(self) -> str:
        digest = f" (sha256 {self.sha256[:12]})" if self.sha256 else ""
        return f"{self.how.value} {self.name}{digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """A plugin as the catalog knows it. Nothing of its code has been imported, only its registration module."""

    kind: PluginKind | None
    """None if it failed before it could say."""
    name: str
    """The plugin's name; for what failed before it gave one, the name of its entry point, file or object."""
    spec: PluginSpec | None
    """None if it failed before giving one."""
    distribution: str
    """The distribution's name; for a file or module without packaging its own name; ``object`` for an object."""
    version: str | None
    """The distribution's version; None where there is none."""
    status: EntryStatus
    reason: str = ""
    """Why the status is not ``ok``, and what to do; empty if it is."""
    origin: Origin
    notes: tuple[str, ...] = ()
    """What is odd about it without keeping it from working: a slow import, output at import."""
    cause: BaseException | None = field(default=None, compare=False, repr=False)
    """The exception behind `reason`, if there was one."""

    @property
    def ok(self) -> bool:
        """Whether it can be selected."""
        return self.status is EntryStatus.OK

    @property
    def address(self) -> str:
        """``kind/name@distribution``; the kind is ``?`` where it is not known."""
        return f"{self.kind.value if self.kind else '?'}/{self.name}@{self.distribution}"

    @property
    def owner(self) -> str:
        """The distribution and its version, as messages name them; a file by its path and hash."""
        if self.origin.path is not None:
            return f"{self.origin.path} (sha256 {(self.origin.sha256 or '')[:12]})"
        return f"{self.distribution} {self.version}" if self.version else self.distribution

    @property
    def title(self) -> str:
        """Kind, name, distribution and version, as error messages begin."""
        if self.spec is None:
            where = "" if self.origin.path else f" of {self.owner}"
            return f"plugin {self.origin}{where}"
        return f"{self.spec.kind.value} {self.name!r} of {self.owner}"
