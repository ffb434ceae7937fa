"""Throw-away distributions, as pip would leave them behind: for tests of what happens when one is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["write_distribution"]


def write_distribution(
    site: Path,
    name: str,
    *,
    version: str = "1.0",
    entry_points: Mapping[str, str] | None = None,
    modules: Mapping[str, str] | None = None,
    requires: Sequence[str] = (),
    group: str = "vcore",
) -> None:
    """Write a distribution into the folder `site`, which belongs on Python's path (``PYTHONPATH``, `sys.path`).

    Args:
        site: stands for ``site-packages``; made if it is not there.
        name: the distribution's name.
        version: its version.
        entry_points: of `group`: name to ``"package.module"``.
        modules: file names, such as ``"acme/plugin.py"``, to Python source. Folders become packages.
        requires: its ``Requires-Dist`` lines.
        group: the entry points' group.
    """
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata += [f"Requires-Dist: {line}" for line in requires]
    (info / "METADATA").write_text("\n".join(metadata) + "\n", encoding="utf-8")
    points = [f"[{group}]", *(f"{key} = {value}" for key, value in (entry_points or {}).items())]
    (info / "entry_points.txt").write_text("\n".join(points) + "\n", encoding="utf-8")
    for path, source in (modules or {}).items():
        file = site / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.parent != site:
            (file.parent / "__init__.py").touch()
        file.write_text(source, encoding="utf-8")
