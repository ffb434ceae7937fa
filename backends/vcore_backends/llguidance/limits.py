"""`check_limits`: refuses forms that are too large to compile beside running requests.

The library compiles in native code that nothing can interrupt, in a time that grows with the square of some sizes and
the cube of others, and by recursion as deep as definitions refer to each other. The limits are far above what people
write by hand, and each keeps a compilation to about a second. Repetitions such as ``(a?){5000}`` cost nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from vcore_backends.llguidance.options import LLGuidanceOptions

__all__ = ["MAX_FORM", "MAX_PATTERN", "MAX_PATTERN_PROPERTIES", "MAX_PROPERTIES", "check_limits"]

MAX_FORM = 1 << 17
"""Most characters of a schema, a grammar, or all texts to choose from."""
MAX_PATTERN = 1 << 13
"""Most characters of a regular expression, and of a line of a grammar that has one."""
MAX_PROPERTIES = 1 << 11
"""Most properties of one object of a schema."""
MAX_PATTERN_PROPERTIES = 100
"""Most pattern properties of one object: each is compared with every other."""


def check_limits(options: LLGuidanceOptions) -> None:
    """Refuse what is too large.

    Raises:
        ValueError: says what is, and how much is taken.
    """
    _check_size("the expression", len(options.regex or ""), MAX_PATTERN)
    _check_size("the choice", sum(map(len, options.choice or ())), MAX_FORM)
    _check_size("the grammar", len(options.grammar or ""), MAX_FORM)
    for line in (options.grammar or "").splitlines():
        if "/" in line:
            _check_size("a line of the grammar with an expression", len(line), MAX_PATTERN)
    tags = () if options.structural_tag is None else options.structural_tag.structures
    schemas = [schema for schema in (options.json_schema, *(tag.json_schema for tag in tags)) if schema is not None]
    begins = sum(len(tag.begin) + len(tag.end) for tag in tags)
    _check_size("the schema" if len(schemas) == 1 else "all schemas", begins + sum(map(len, schemas)), MAX_FORM)
    for schema in schemas:
        _check_schema(json.loads(schema))


def _check_schema(schema: Any) -> None:  # whatever JSON holds
    for value in _objects(schema):
        _check_count("properties", value, MAX_PROPERTIES)
        _check_count("patternProperties", value, MAX_PATTERN_PROPERTIES)
        pattern = value.get("pattern")
        if isinstance(pattern, str):
            _check_size("a pattern of the schema", len(pattern), MAX_PATTERN)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in `value`, at any depth; what is deep must not cost a stack."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _check_count(key: str, schema: dict[str, Any], most: int) -> None:
    value = schema.get(key)
    if isinstance(value, dict) and len(value) > most:
        raise ValueError(f"an object has {len(value)} {key}; at most {most} are taken")


def _check_size(what: str, size: int, most: int) -> None:
    if size > most:
        raise ValueError(f"{what} has {size} characters; at most {most} are taken")
