"""Secrets: ``${env:NAME}`` is filled in where a `SecretStr` stands, refused elsewhere, and no secret is ever shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, SecretBytes, SecretStr

__all__ = ["MASK", "fill_references", "holds_secret", "is_reference", "is_secret", "mask", "mask_unknown", "node_in"]

MASK = "**********"
"""What is shown in a secret's place."""

_REFERENCE = re.compile(r"\$\{env:([^}]*)\}")


def is_reference(value: object) -> bool:
    """Whether `value` is one ``${env:NAME}`` and nothing else: it may be shown, for it gives nothing away."""
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


def holds_secret(annotation: object) -> bool:
    """Whether a field of this type is, or contains, a secret."""
    if isinstance(annotation, type) and issubclass(annotation, SecretStr | SecretBytes):
        return True
    return any(holds_secret(argument) for argument in get_args(annotation))


def node_in(annotation: object) -> type[BaseModel] | None:
    """The pydantic model that a field of this type holds (itself, in a union or in a container), or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((node for argument in get_args(annotation) if (node := node_in(argument)) is not None), None)


def fill_references(value: Any, annotation: object) -> Any:  # whatever the user wrote
    """`value` with every ``${env:NAME}`` replaced by that environment variable.

    What a nested model will check is left alone: it does the same for its own fields.

    Raises:
        ValueError: a reference stands where no secret is expected, its variable is not set, or a secret is the mask,
            as in a configuration that was shown and saved.
    """
    if isinstance(value, str):
        if value == MASK and holds_secret(annotation):
            raise ValueError("this is what is shown in a secret's place; write the secret, or ${env:NAME}")
        if _REFERENCE.search(value) is None:
            return value
        if not holds_secret(annotation):
            raise ValueError("${env:NAME} is filled in only where a secret is expected; write the value itself")
        return _REFERENCE.sub(_lookup, value)
    if node_in(annotation) is not None:
        return value
    if isinstance(value, Mapping):
        return {key: fill_references(item, annotation) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [fill_references(item, annotation) for item in value]
    return value


def _lookup(match: re.Match[str]) -> str:
    name = match.group(1)
    if name not in os.environ:
        raise ValueError(f"${{env:{name}}}: the environment variable {name!r} is not set; set it before the start")
    return os.environ[name]


def is_secret(path: str, model: type[BaseModel]) -> bool:
    """Whether the dotted `path` in `model` leads to a secret, or to nowhere."""
    annotation: object = model
    for part in path.split("."):
        node = node_in(annotation)
        if node is None or part not in node.model_fields:
            return True
        annotation = node.model_fields[part].annotation
    return holds_secret(annotation)


def mask(value: Any, model: type[BaseModel]) -> Any:  # whatever the user wrote
    """A copy of `value`, written for `model`, in which secrets are masked; references stay as written."""
    if not isinstance(value, Mapping):
        return mask_unknown(value)
    shown = {}
    for key, item in value.items():
        field = model.model_fields.get(key)
        if field is None or holds_secret(field.annotation):
            shown[key] = mask_unknown(item)
        elif (node := node_in(field.annotation)) is not None:
            shown[key] = _mask_nodes(item, node)
        else:
            shown[key] = _plain(item)
    return shown


def mask_unknown(value: Any) -> Any:  # whatever the user wrote
    """A copy of `value`, of which nothing is known: every text and number in it is masked, but for references."""
    if isinstance(value, Mapping):
        return {key: mask_unknown(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [mask_unknown(item) for item in value]
    if value is None or isinstance(value, bool) or is_reference(value):
        return value
    return MASK


def _mask_nodes(value: Any, model: type[BaseModel]) -> Any:
    if isinstance(value, list | tuple):
        return [_mask_nodes(item, model) for item in value]
    return mask(value, model) if isinstance(value, Mapping) else mask_unknown(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
