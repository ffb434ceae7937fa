"""Renamed keys: the old name goes on working for two minor versions, with one warning, and then says the new one."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from packaging.version import Version

from vcore.errors import ConfigError
from vcore.version import __version__

__all__ = ["RENAMED", "Renamed", "apply_renames"]

_MINOR_VERSIONS_KEPT = 2


@dataclass(frozen=True, slots=True)
class Renamed:
    """A key that has a new name."""

    old: str
    """Dotted, as in ``"cache.gpu_memory"``."""
    new: str
    """Dotted, as in ``"cache.memory_fraction"``."""
    since: str
    """The version that renamed it, ``"MAJOR.MINOR"``."""

    @property
    def removed_in(self) -> str:
        """The first version in which the old name is an error."""
        since = Version(self.since)
        return f"{since.major}.{since.minor + _MINOR_VERSIONS_KEPT}"


RENAMED: tuple[Renamed, ...] = ()
"""Every key that was renamed lately. An entry may go once its `removed_in` is long past."""


def apply_renames(
    tree: dict[str, Any], renames: Sequence[Renamed] | None = None, version: str = __version__
) -> dict[str, Any]:
    """Move values from old keys to new ones, in `tree` itself.

    Args:
        tree: nested, without dotted keys. Changed.
        renames: instead of `RENAMED`.
        version: the running version.

    Raises:
        ConfigError: an old name is no longer served, or stands beside the new one.
    """
    for rename in RENAMED if renames is None else renames:
        *parents, last = rename.old.split(".")
        holder = _descend(tree, parents)
        if holder is None or last not in holder:
            continue
        if Version(version) >= Version(rename.removed_in):
            raise ConfigError(f"{rename.old}: renamed to {rename.new} in {rename.since}; write {rename.new}")
        value = holder.pop(last)
        _drop_empty(tree, parents)
        *new_parents, new_last = rename.new.split(".")
        target = tree
        for part in new_parents:
            target = target.setdefault(part, {})
        if new_last in target:
            raise ConfigError(
                f"{rename.old} and {rename.new} are both given, and are the same key: {rename.old} is the name from "
                f"before {rename.since}. Leave {rename.old} out."
            )
        target[new_last] = value
        _warn_once(rename)
    return tree


def _descend(tree: dict[str, Any], parts: Sequence[str]) -> dict[str, Any] | None:
    node: Any = tree
    for part in parts:
        node = node.get(part) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else None


def _drop_empty(tree: dict[str, Any], parts: Sequence[str]) -> None:
    """Remove the mappings along `parts` that nothing is left in: a section may have been renamed away with its keys."""
    for depth in range(len(parts), 0, -1):
        holder = _descend(tree, parts[: depth - 1])
        if holder is None or holder[parts[depth - 1]]:
            return
        del holder[parts[depth - 1]]


@functools.cache
def _warn_once(rename: Renamed) -> None:
    warnings.warn(
        f"the configuration key {rename.old} was renamed to {rename.new} in {rename.since}; the old name works until "
        f"{rename.removed_in}",
        FutureWarning,
        stacklevel=2,
    )
