"""Entry points that an editable install's ``pyproject.toml`` has by now and its metadata does not, or the other way.

pip writes the metadata once, when it installs; a line that is added to ``pyproject.toml`` afterwards is not seen
until it installs again. Only distributions that are installed editably from a folder on this machine can go stale
(PEP 610's ``direct_url.json`` tells). Whatever cannot be read is passed over: this only ever adds a hint.
"""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from vcore.plugins.distributions import canonical_name
from vcore.plugins.hookspecs import ENTRY_POINT_GROUP

__all__ = ["StaleEntryPoint", "stale_entry_points"]

_MAX_BYTES = 1 << 20
"""Of a pyproject.toml that is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleEntryPoint:
    """One entry point in which an editable install and its source differ."""

    distribution: str
    name: str
    value: str
    """The module, as it is in ``pyproject.toml``; if it is gone there, as the metadata has it."""
    folder: Path
    """Of the ``pyproject.toml``."""
    is_gone: bool
    """It is in the metadata alone. Otherwise the metadata misses it, or has another module."""

    @property
    def remedy(self) -> str:
        """The command that brings the metadata up to date."""
        return f"pip install --no-deps --editable {shlex.quote(str(self.folder))}"

    def __str__(self) -> str:
        entry, file = f"entry point {self.name} = {self.value!r}", self.folder / "pyproject.toml"
        if self.is_gone:
            found = f"the {entry} is installed, and is no longer in {file}"
        else:
            found = f"the {entry} in {file} is not installed"
        return f"{self.distribution}: {found}; run `{self.remedy}`"


def stale_entry_points() -> list[StaleEntryPoint]:
    """What differs, by distribution and name. Reads the metadata of every distribution: not for the way to a start."""
    found: dict[str, list[StaleEntryPoint]] = {}
    for distribution in metadata.distributions():
        try:
            folder = _editable_folder(distribution)
            if folder is None:
                continue
            name = distribution.metadata["Name"]
            if name and canonical_name(name) not in found:  # the first on the path is the one that Python takes
                found[canonical_name(name)] = _differences(name, folder, distribution)
        except Exception:  # metadata and pyproject.toml are strangers' texts, and their parsers raise all sorts
            continue
    return [stale for _, differences in sorted(found.items()) for stale in differences]


def _editable_folder(distribution: metadata.Distribution) -> Path | None:
    """The folder that the distribution is installed from editably, if it is."""
    text = distribution.read_text("direct_url.json")
    if text is None:
        return None
    direct_url = json.loads(text)
    if direct_url["dir_info"].get("editable") is not True:
        return None
    url = urlsplit(direct_url["url"])
    return Path(url2pathname(url.path)) if url.scheme == "file" else None


def _differences(name: str, folder: Path, distribution: metadata.Distribution) -> list[StaleEntryPoint]:
    stated = _stated_entry_points(name, folder / "pyproject.toml")
    if stated is None:
        return []
    installed = {point.name: point.value for point in distribution.entry_points if point.group == ENTRY_POINT_GROUP}
    missing = {key: value for key, value in stated.items() if installed.get(key) != value}
    gone = {key: value for key, value in installed.items() if key not in stated}
    return [
        StaleEntryPoint(distribution=name, name=key, value=value, folder=folder, is_gone=is_gone)
        for names, is_gone in ((missing, False), (gone, True))
        for key, value in sorted(names.items())
    ]


def _stated_entry_points(name: str, file: Path) -> Mapping[str, str] | None:
    """The entry points of ours in a ``pyproject.toml``; None if it does not state them, or is another project's."""
    if file.stat().st_size > _MAX_BYTES:
        return None
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    if canonical_name(project["name"]) != canonical_name(name) or "entry-points" in project.get("dynamic", ()):
        return None
    points = project.get("entry-points", {}).get(ENTRY_POINT_GROUP, {})
    return {key: value.strip() for key, value in points.items()}
