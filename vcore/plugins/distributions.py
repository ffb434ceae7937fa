"""Installed distributions as far as plugins need them: entry points, versions, requirements, all from metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata

from vcore.plugins.hookspecs import ENTRY_POINT_GROUP
from vcore.version import __version__

__all__ = [
    "CORE_DISTRIBUTION",
    "PluginDistribution",
    "canonical_name",
    "engine_requirement_problem",
    "plugin_distributions",
    "requirement_problem",
]

CORE_DISTRIBUTION = "vcore-engine"
"""The distribution that vcore itself comes in."""

_SEPARATORS = re.compile(r"[-_.]+")


def canonical_name(name: str) -> str:
    """The name by which distributions are compared (PEP 503)."""
    return _SEPARATORS.sub("-", name).lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginDistribution:
    """A distribution with entry points of ours."""

    name: str
    version: str | None
    requires: Sequence[str]
    """Its ``Requires-Dist`` lines."""
    entry_points: Sequence[metadata.EntryPoint]
    error: BaseException | None = None
    """What reading its metadata raised; then there are no entry points."""

    @property
    def is_core(self) -> bool:
        """Whether it is vcore's own."""
        return canonical_name(self.name) == CORE_DISTRIBUTION


def plugin_distributions() -> Iterator[PluginDistribution]:
    """Every installed distribution that names entry points of ours, vcore's own first, then by name.

    One that is hidden by another of the same name, earlier on the path, is left out. Unreadable
    metadata of one distribution does not touch the others.
    """
    found: dict[str, PluginDistribution] = {}
    for distribution in metadata.distributions():
        try:
            text = distribution.read_text("entry_points.txt")
        except (OSError, UnicodeError):
            continue  # not ours as far as anyone can tell
        if not text or f"[{ENTRY_POINT_GROUP}]" not in text:
            continue
        read = _read(distribution)
        if not _is_shadowed(read.name, distribution):
            found.setdefault(canonical_name(read.name), read)
    yield from sorted(found.values(), key=lambda one: (not one.is_core, canonical_name(one.name)))


def _read(distribution: metadata.Distribution) -> PluginDistribution:
    name = version = None
    try:
        name, version = distribution.metadata["Name"], distribution.metadata["Version"]
        if not name:
            raise ValueError("its METADATA states no Name")
        points = [point for point in distribution.entry_points if point.group == ENTRY_POINT_GROUP]
        requires = tuple(distribution.requires or ())
        return PluginDistribution(name=name, version=version, requires=requires, entry_points=points)
    except Exception as error:  # metadata is a stranger's text, and its parsers raise all sorts
        shown = name or str(getattr(distribution, "_path", "an unnamed distribution"))
        return PluginDistribution(name=shown, version=version, requires=(), entry_points=(), error=error)


def _is_shadowed(name: str, distribution: metadata.Distribution) -> bool:
    """Whether Python would take another distribution of that name, one earlier on its path."""
    try:
        first = metadata.distribution(name)
        return first.locate_file("") != distribution.locate_file("") or first.version != distribution.version
    except Exception:  # unreadable: reported as such by its own entry
        return False


def engine_requirement_problem(distribution: PluginDistribution) -> str | None:
    """Why the distribution's own ``Requires-Dist: vcore-engine`` excludes this vcore; None if it does not."""
    for line in distribution.requires:
        if not canonical_name(line).startswith(CORE_DISTRIBUTION):
            continue  # packaging is not imported for the sake of other lines
        from packaging.requirements import InvalidRequirement, Requirement

        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue  # pip refuses such metadata; it states nothing about us
        if canonical_name(requirement.name) != CORE_DISTRIBUTION:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if not requirement.specifier.contains(__version__, prereleases=True):
            return (
                f"{distribution.name} {distribution.version} requires {line}, but this is {CORE_DISTRIBUTION} "
                f"{__version__}; install a version of either that fits, as "
                f"`pip install '{CORE_DISTRIBUTION}{requirement.specifier}'` or `pip install -U {distribution.name}`"
            )
    return None


def requirement_problem(text: str) -> str | None:
    """Why the PEP 508 requirement `text` is not met by what is installed, with the remedy; None if it is.

    Raises:
        ValueError: it is not a requirement.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise ValueError(f"requires: {text!r} is not a PEP 508 requirement: {error}") from error
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return None
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"it requires {text}, which is not installed; `pip install '{text}'`"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"it requires {text}, but {requirement.name} {version} is installed; `pip install '{text}'`"
    return None
