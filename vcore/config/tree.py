"""Partial trees: what users write, nested or with dotted keys, and how one is laid over another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from vcore.config.models import PLUGIN_CHOICES, EngineConfig
from vcore.config.secrets import is_secret
from vcore.errors import ConfigError

__all__ = ["holds", "merge", "nest"]

_SECTIONS = frozenset(name for name in EngineConfig.model_fields if name not in PLUGIN_CHOICES)
"""The keys at the top that hold others, so that an empty one means none of them."""


def nest(pairs: Iterable[tuple[str, Any]], path: str = "") -> dict[str, Any]:
    """One nested dictionary of `pairs` of (dotted) key and value, whose values may be nested themselves.

    Options of plugins are taken as they are: their keys may contain dots.

    Raises:
        ConfigError: a key is no text, has an empty part, or is given twice with different values.
    """
    tree: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str) or not all(key.split(".")):
            raise ConfigError(f"{path or 'the top'}: found the key {key!r}, expected a name such as 'cache.block_size'")
        full = f"{path}.{key}" if path else key
        plain = _plain(value, full)
        if plain is None and full in _SECTIONS:
            continue  # an empty section, as left by a file whose lines are commented out
        _put(tree, key.split("."), plain, path)
    return tree


def merge(base: dict[str, Any], over: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """A copy of `base` with `over` laid over it.

    Mappings are merged; anything else replaces. Where a plugin is chosen, options are kept only as long as
    the name stays the same.
    """
    merged = dict(base)
    for key, value in over.items():
        full = f"{path}.{key}" if path else key
        old = merged.get(key)
        if full in PLUGIN_CHOICES:
            old = _as_choice(old)
            merged[key] = merge(old, value, full) if _same_name(old, value) else value
        elif isinstance(old, dict) and isinstance(value, dict):
            merged[key] = merge(old, value, full)
        else:
            merged[key] = value
    return merged


def holds(tree: Mapping[str, Any], path: str) -> bool:
    """Whether `tree` says something about the dotted `path`, or about a part of it."""
    node: Any = tree
    for part in path.split("."):
        if not isinstance(node, Mapping):
            return True
        name = part.partition("[")[0]
        if name not in node:
            return False
        node = node[name]
    return True


def _plain(value: Any, path: str) -> Any:
    """`value` in dictionaries of its own, with dotted keys in it taken apart."""
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_unset=True)
    if not isinstance(value, Mapping):
        return [_plain(item, f"{path}[]") for item in value] if isinstance(value, list | tuple) else value
    if _in_options(path) or "[" in path:
        return dict(value)
    return nest(value.items(), path)


def _in_options(path: str) -> bool:
    return any(path == f"{choice}.options" or path.startswith(f"{choice}.options.") for choice in PLUGIN_CHOICES)


def _same_name(old: Any, value: Any) -> bool:
    """Whether two ways of choosing a plugin, as mappings, are about the same one."""
    return isinstance(old, dict) and isinstance(value, dict) and value.get("name", old.get("name")) == old.get("name")


def _as_choice(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _put(tree: dict[str, Any], parts: list[str], value: Any, path: str) -> None:
    """Set the key `parts` of `tree`, which says what is at `path`."""
    key, *rest = parts
    full = f"{path}.{key}" if path else key
    if rest:
        value_here: Any = {}
        _put(value_here, rest, value, full)
    else:
        value_here = value
    if key not in tree:
        tree[key] = value_here
        return
    old = tree[key]
    if full in PLUGIN_CHOICES and isinstance(old, dict) != isinstance(value_here, dict):
        old, value_here = _as_choice(old), _as_choice(value_here)
    if isinstance(old, dict) and isinstance(value_here, dict):
        tree[key] = old
        for name, item in value_here.items():
            _put(old, [name], item, full)
    elif old != value_here:
        shown = "" if _in_options(full) or is_secret(full, EngineConfig) else f", as {old!r} and as {value_here!r}"
        raise ConfigError(f"{full} is given twice{shown}; leave one out")
