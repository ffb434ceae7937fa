"""`load_config`: from a file, a dictionary or a tree, with overrides, to one checked `EngineConfig`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vcore.config.aliases import apply_renames
from vcore.config.files import parse_value, read_file
from vcore.config.flat_keywords import expand_keywords
from vcore.config.models import EngineConfig
from vcore.config.problems import Problem, problems
from vcore.config.tree import holds, merge, nest
from vcore.errors import ConfigError

__all__ = ["load_config", "looks_like_file", "parse_set"]

_PATHS = {"model": ("path", "tokenizer"), "server": ("tls_cert", "tls_key", "chat_template")}
"""The keys by section that hold paths."""

ConfigSource = EngineConfig | Mapping[str, Any] | str | os.PathLike[str] | None
"""A tree, a (nested or dotted) dictionary, the path of a file, or None for the defaults."""


def load_config(
    source: ConfigSource = None, overrides: Mapping[str, Any] | Sequence[str] = (), *, overrides_name: str = "overrides"
) -> EngineConfig:
    """The configuration that `source` states, with `overrides` laid over it.

    Args:
        source: what is configured. Paths in a file's `plugins.load`, and other paths in it that begin with
            ``./`` or exist beside it, are relative to the file.
        overrides: keywords of Python (flat ones such as ``block_size=16``, dotted keys, parts of the tree),
            or ``"KEY=VALUE"`` strings; these win over `source`.
        overrides_name: what messages call the overrides.

    Raises:
        ConfigError: something is unknown, malformed, given twice, or of the wrong type; the message has each
            path, what was found there and what was expected.
    """
    name, tree = _read(source)
    over = _read_overrides(overrides)
    if name is not None:
        tree = _anchor(tree, Path(name).absolute().parent)
        over = _anchor_plugins(over, Path.cwd())
    try:
        return EngineConfig.model_validate(merge(tree, over))
    except ValidationError as error:
        found = problems(error, EngineConfig)
    raise _config_error(found, over, name, overrides_name)


def parse_set(items: Sequence[str]) -> dict[str, Any]:
    """Dotted keys and values of ``KEY=VALUE`` strings, whose values are YAML; of a key given twice, the last counts.

    Raises:
        ConfigError: an item has no ``=``, or its value is not well-formed YAML.
    """
    values: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"found {item!r}, expected KEY=VALUE, such as cache.block_size=16")
        try:
            value = parse_value(text)
        except ConfigError as error:
            raise ConfigError(f"{key.strip()}: {error}") from None
        values.pop(key.strip(), None)
        values[key.strip()] = value
    return values


def looks_like_file(entry: str) -> bool:
    """Whether an entry of `plugins.load` is a file rather than a module's name."""
    return entry.endswith(".py") or "/" in entry or os.sep in entry


def _read(source: ConfigSource) -> tuple[str | None, dict[str, Any]]:
    """The name of the file that `source` is, if it is one, and its tree."""
    if source is None:
        return None, {}
    if isinstance(source, EngineConfig):
        return None, source.model_dump(exclude_unset=True)
    if isinstance(source, str | os.PathLike):
        path = Path(os.path.expanduser(source))
        values = read_file(path)
        try:
            return str(path), _without_schema(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    if isinstance(source, Mapping):
        return None, _without_schema(source)
    raise ConfigError(
        f"found a configuration of type {type(source).__name__}, expected an EngineConfig, a dictionary, or the path "
        "of a YAML, TOML or JSON file"
    )


def _without_schema(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` as a nested tree, without the ``$schema`` that editors read."""
    if not isinstance(values.get("$schema", ""), str):
        raise ConfigError("$schema: expected the address of a JSON schema, as a text")
    return apply_renames(nest((key, value) for key, value in values.items() if key != "$schema"))


def _read_overrides(overrides: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    if isinstance(overrides, Mapping):
        return apply_renames(nest(expand_keywords(overrides, EngineConfig.model_fields)))
    items = [overrides] if isinstance(overrides, str) else overrides
    tree: dict[str, Any] = {}
    for key, value in parse_set(items).items():
        tree = merge(tree, nest([(key, value)]))
    return apply_renames(tree)


def _anchor(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A copy of a file's `tree` in which its relative paths are absolute; `folder` is where the file is."""
    tree = _anchor_plugins(tree, folder)
    for section, keys in _PATHS.items():
        values = tree.get(section)
        if isinstance(values, dict):
            anchored = {key: _anchor_path(values[key], folder) for key in keys if isinstance(values.get(key), str)}
            tree = {**tree, section: {**values, **anchored}}
    return tree


def _anchor_path(path: str, folder: Path) -> str:
    explicit = path.startswith(("./", "../")) or path in (".", "..")
    return os.path.normpath(folder / path) if explicit or os.path.exists(folder / path) else path


def _anchor_plugins(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    plugins = tree.get("plugins")
    if not isinstance(plugins, dict) or not isinstance(plugins.get("load"), list):
        return tree
    load = [_anchor_plugin(entry, folder) if isinstance(entry, str) else entry for entry in plugins["load"]]
    return {**tree, "plugins": {**plugins, "load": load}}


def _anchor_plugin(entry: str, folder: Path) -> str:
    return os.path.normpath(folder / os.path.expanduser(entry)) if looks_like_file(entry) else entry


def _config_error(found: list[Problem], over: dict[str, Any], name: str | None, overrides_name: str) -> ConfigError:
    """One error of all problems, each with the place it comes from."""
    lines = []
    for problem in found:
        origin = overrides_name if holds(over, problem.path) else name
        lines.append(f"{origin}: {problem}" if origin else str(problem))
    if len(lines) == 1:
        return ConfigError(lines[0])
    return ConfigError(f"{len(lines)} problems in the configuration:\n" + "\n".join(f"  {line}" for line in lines))
