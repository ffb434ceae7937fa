"""What is wrong with a configuration, in words: pydantic's findings by path, with what was found and what to write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vcore.config.flat_keywords import FLAT_KEYWORDS
from vcore.config.models import PluginChoice
from vcore.config.secrets import MASK, holds_secret, node_in
from vcore.suggestions import close_match, did_you_mean

__all__ = ["Problem", "dotted_keys", "problems"]

_MAX_SHOWN = 80
"""Characters of a found value that a message repeats."""

_PHRASES = {
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number of at most {le}",
    "string_too_short": "a text that is not empty",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "literal_error": "{expected}",
}
"""What was expected, by pydantic's type of error; others speak with pydantic's own words."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    path: str
    """Where, as a dotted key; empty for the whole."""
    message: str
    """What was found and what was expected; secrets are masked."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


@dataclass(slots=True)
class _Finding:
    """All that pydantic says about one path."""

    annotation: object
    value: Any  # whatever the user wrote
    expected: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


def problems(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[Problem]:
    """What `error` says, one problem a path; no secret is in it.

    Args:
        error: raised when `model` checked a value.
        model: what was checked; `EngineConfig`, or the options model of a plugin.
        prefix: put before each path, such as ``"attention.backend.options"``.
    """
    findings: dict[str, _Finding] = {}
    for detail in error.errors(include_url=False):
        path, annotation = _locate(model, detail)
        finding = findings.setdefault(path, _Finding(annotation, detail["input"]))
        if detail["type"] == "extra_forbidden":
            finding.messages.append(_unknown_key(model, path))
        elif detail["type"] == "missing":
            finding.messages.append("is required, but was not given")
        elif detail["type"] == "value_error":
            finding.messages.append(detail["msg"].removeprefix("Value error, "))
        else:
            finding.expected.append(_expectation(detail, annotation))
    found = []
    for path, finding in findings.items():
        full = ".".join(part for part in (prefix, path) if part)
        found.append(Problem(full, _describe(finding)))
    return found


def dotted_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every key of `model` and the models in it, as ``section.key``."""
    keys = []
    for name, info in model.model_fields.items():
        keys.append(prefix + name)
        node = info.annotation
        if isinstance(node, type) and issubclass(node, BaseModel):
            keys += dotted_keys(node, f"{prefix}{name}.")
    return keys


def _locate(model: type[BaseModel], detail: ErrorDetails) -> tuple[str, object]:
    """The dotted path of a finding, without pydantic's names of union members, and the type that is wanted there."""
    annotation: object = model
    path = ""
    for element in detail["loc"]:
        if isinstance(element, int):
            path += f"[{element}]"
            continue
        node = node_in(annotation)
        if node is not None and element in node.model_fields:
            annotation = node.model_fields[element].annotation
        elif not (_is_mapping(annotation) or (node is not None and detail["type"] == "extra_forbidden")):
            continue
        path = f"{path}.{element}" if path else element
    return path, annotation


def _is_mapping(annotation: object) -> bool:
    origin = get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return True
    return any(_is_mapping(argument) for argument in get_args(annotation))


def _expectation(detail: ErrorDetails, annotation: object) -> str:
    if detail["type"] in ("model_type", "model_attributes_type"):
        node = node_in(annotation)
        if node is None:
            return "a mapping"
        keys = f"a mapping with the keys {', '.join(node.model_fields)}"
        return f"the name of a plugin or {keys}" if issubclass(node, PluginChoice) else keys
    phrase = _PHRASES.get(detail["type"])
    if phrase is None:
        return detail["msg"].removeprefix("Input should be ")
    return phrase.format(**detail.get("ctx", {}))


def _describe(finding: _Finding) -> str:
    if finding.messages:
        return "; ".join(dict.fromkeys(finding.messages))
    expected = " or ".join(dict.fromkeys(finding.expected))
    text = f"found {_shown(finding.value, finding.annotation)}, expected {expected}"
    if isinstance(finding.value, str) and not holds_secret(finding.annotation):
        text += did_you_mean(finding.value, _choices(finding.annotation), most=1, cutoff=0.5)
    return text


def _shown(value: object, annotation: object) -> str:
    """`value` as a message may repeat it: containers are only named, for there may be secrets in them."""
    if holds_secret(annotation):
        return MASK
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


def _choices(annotation: object) -> list[str]:
    return [choice for argument in get_args(annotation) for choice in _strings(argument)]


def _strings(argument: object) -> list[str]:
    return [argument] if isinstance(argument, str) else _choices(argument)


def _unknown_key(model: type[BaseModel], path: str) -> str:
    """Why a key is not known, with the key that was probably meant: near it, or elsewhere in the tree."""
    parent, _, key = path.rpartition(".")
    siblings = _keys_at(model, parent)
    where = f"{parent} has" if parent else "there are"
    known = f"{where}: {', '.join(siblings)}" if siblings else "there are no keys here"
    near = [f"{parent}.{sibling}" if parent else sibling for sibling in siblings]
    hint = _closest(key, near, 0.7) or _elsewhere(model, key) or _closest(key, near, 0.6)
    return f"unknown key{hint or f'; {known}'}"


def _elsewhere(model: type[BaseModel], key: str) -> str:
    dotted = dotted_keys(model)
    same_name = [candidate for candidate in dotted if _last(candidate) == key]
    if not same_name and FLAT_KEYWORDS.get(key) in dotted:
        same_name = [FLAT_KEYWORDS[key]]
    if same_name:
        return f"; did you mean {' or '.join(repr(candidate) for candidate in same_name)}?"
    return _closest(key, dotted, 0.75)


def _closest(key: str, dotted: Iterable[str], cutoff: float) -> str:
    """The dotted key whose last part is most like `key`, as a question."""
    by_name = {_last(candidate): candidate for candidate in dotted}
    close = close_match(key, by_name, cutoff=cutoff)
    return f"; did you mean {by_name[close]!r}?" if close else ""


def _last(dotted: str) -> str:
    return dotted.rpartition(".")[2]


def _keys_at(model: type[BaseModel], path: str) -> list[str]:
    node: type[BaseModel] | None = model
    for part in path.split(".") if path else []:
        field_info = node.model_fields.get(part.partition("[")[0]) if node is not None else None
        node = node_in(field_info.annotation) if field_info is not None else None
    return list(node.model_fields) if node is not None else []
