"""Reading configuration files: YAML, TOML and JSON, each into plain dictionaries, with every key at most once."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from vcore.errors import ConfigError

__all__ = ["parse_value", "read_file"]

_SCALARS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
)
"""YAML 1.2's core schema (section 10.3.2): ``no`` and ``on`` are texts, ``1e-3`` is a number, dates are texts.
Merge keys, which it dropped, are kept, for many use them."""


_MERGE = "tag:yaml.org,2002:merge"

_MAX_DEPTH = 64
"""Mappings and lists within each other; also what ends a YAML alias to a node that holds the alias."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2, and without its silence about duplicate keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[object, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node)
            line = key_node.start_mark.line + 1
            if key in seen:
                raise ConfigError(f"line {line}: the key {key!r} stands there twice; the first is on line {seen[key]}")
            seen[key] = line
        return super().construct_mapping(node, deep)

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        """In YAML 1.2 a leading zero means nothing, and ``0o`` is octal."""
        text = str(self.construct_scalar(node))
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)


def read_file(path: Path) -> dict[str, Any]:
    """What `path` holds; its suffix (``.yaml``, ``.yml``, ``.toml``, ``.json``) says how it is written.

    Raises:
        ConfigError: it cannot be read, is not well formed, holds a key twice, or is not a mapping.
    """
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise ConfigError(f"{path}: a configuration file ends in {', '.join(_PARSERS)}, not in {path.suffix!r}")
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows put a byte order mark first
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file (the working directory is {Path.cwd()})") from None
    except (OSError, ValueError) as error:  # not UTF-8, or a NUL in the name
        raise ConfigError(f"{path}: the configuration file cannot be read as UTF-8 text: {error}") from None
    try:
        value = _parse(parse, text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not well-formed YAML: {_yaml_problem(error)}") from None
    except ValueError as error:  # json and tomllib raise subclasses of it
        raise ConfigError(f"{path}: not well-formed {path.suffix[1:].upper()}: {error}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: found {type(value).__name__} at the top, expected a mapping such as 'cache: ...'")
    return value


def parse_value(text: str) -> Any:  # any YAML value
    """The value of ``KEY=VALUE`` on the command line: YAML, so ``8``, ``true``, ``[a, b]``, ``{name: lru}``, text.

    Raises:
        ConfigError: it is not well-formed YAML. The text itself is not repeated, for it may be a secret.
    """
    try:
        return _parse(_load_yaml, text)
    except yaml.YAMLError as error:
        problem = _yaml_problem(error)
    raise ConfigError(f"the value is not well-formed YAML: {problem}; quote it to make it a text")


def _parse(parse: Callable[[str], Any], text: str) -> Any:
    """What `parse` makes of `text`, unless that is nested without measure."""
    try:
        value = parse(text)
    except RecursionError:
        pass
    else:
        if not _deeper_than(value, _MAX_DEPTH, {}):
            return value
    raise ConfigError(
        f"mappings and lists stand more than {_MAX_DEPTH} deep within each other, or one holds itself; nothing in a "
        "configuration needs that"
    )


def _deeper_than(value: object, levels: int, checked: dict[int, int]) -> bool:
    """Whether containers in `value` go deeper than `levels`; `checked`: for how many levels each one was found not to.

    YAML's aliases let one container stand in many places: each is looked at once a depth, not once a place.
    """
    if not isinstance(value, dict | list) or checked.get(id(value), levels + 1) <= levels:
        return False
    if levels == 0:
        return True
    items = value.values() if isinstance(value, dict) else value
    if any(_deeper_than(item, levels - 1, checked) for item in items):
        return True
    checked[id(value)] = levels
    return False


def _load_yaml(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # a subclass of the safe loader
    except ConfigError:
        raise
    except (ValueError, LookupError, AttributeError, TypeError):  # what PyYAML's own constructors let through
        raise ConfigError("a YAML value does not fit its tag, or a number has too many digits") from None


def _yaml_problem(error: yaml.YAMLError) -> str:
    """What is wrong and where, without an excerpt of the file."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return type(error).__name__
    return f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {error.problem}"


def _parse_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_without_duplicates) if text.strip() else None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ConfigError(f"the key {key!r} stands twice in one object")
        values[key] = value
    return values


_PARSERS: dict[str, Callable[[str], Any]] = {
    ".yaml": _load_yaml,
    ".yml": _load_yaml,
    ".toml": tomllib.loads,
    ".json": _parse_json,
}
