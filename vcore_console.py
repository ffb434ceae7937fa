"""The ``vcore`` command. It stands outside the package, so that it can tell when another `vcore` has taken its place.

An unrelated distribution on PyPI is called `vcore`, too. Installed beside vcore-engine it overwrites
files of ours, or hides them; uninstalling it then removes them. Either way this module is still there
to say so, without importing whatever is found.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

__all__ = ["main"]

_MARKER = "from vcore.version import __version__"
"""A line of our own ``vcore/__init__.py``; a test holds it to that."""

_REPAIR = "pip uninstall vcore && pip install --force-reinstall --no-deps vcore-engine"


def main() -> None:
    """Run the command line; exit with status 1 and the repair if the package is not ours."""
    damage = _damage()
    if damage is None:
        try:
            from vcore.cli.main import main as run
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("vcore."):
                raise
            damage = f"vcore-engine's module {error.name} is missing"
    if damage is not None:
        print(f"error: {damage}.\nRepair it: {_REPAIR}{_source_hint()}", file=sys.stderr)
        sys.exit(1)
    run()


def _damage() -> str | None:
    """What is wrong with the package `vcore`; None if it is ours."""
    spec = importlib.util.find_spec("vcore")  # finds without importing
    if spec is None:
        return "vcore-engine's package `vcore` is missing"
    if spec.origin is None:
        where = ", ".join(spec.submodule_search_locations or ())
        return f"vcore-engine's package `vcore` in {where} has lost its __init__.py, as another `vcore` takes it along"
    try:
        source = Path(spec.origin).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"vcore-engine's package `vcore` cannot be read: {error}"
    if _MARKER not in source.splitlines():
        return f"{spec.origin} is not vcore-engine's: an unrelated package called `vcore` has overwritten or hidden it"
    return None


def _source_hint() -> str:
    """Where vcore-engine came from, if that was not an index of packages."""
    from importlib import metadata

    try:
        origin = json.loads(metadata.distribution("vcore-engine").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, OSError, ValueError):
        return ""
    url = origin.get("url")
    if not url:
        return ""
    editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
    return f"\n(It was installed from {url}: write {editable}{url.removeprefix('file://')} in place of vcore-engine.)"
