"""Values of options that a command line writes as text: names out of a few, lists of numbers, JSON objects."""

from __future__ import annotations

import json
import math
from enum import StrEnum
from typing import Any, TypeVar

from vcore.errors import ConfigError

__all__ = ["json_object", "one_of", "positive", "positive_numbers"]

E = TypeVar("E", bound=StrEnum)


def one_of(kind: type[E], option: str, value: str) -> E:
    """The member of `kind` with that value.

    Raises:
        ConfigError: there is none.
    """
    try:
        return kind(value)
    except ValueError:
        raise ConfigError(f"{option}: found {value!r}, expected one of {', '.join(kind)}") from None


def positive(option: str, value: float) -> float:
    """A finite number above 0.

    Raises:
        ConfigError: it is not.
    """
    if not 0 < value < math.inf:
        raise ConfigError(f"{option}: found {value:g}, expected a number above 0")
    return value


def positive_numbers(option: str, value: str | None) -> tuple[float, ...]:
    """The numbers of ``1,2.5,inf``, each above 0; none of no text.

    Raises:
        ConfigError: one is no such number.
    """
    if value is None:
        return ()
    numbers = []
    for part in value.split(","):
        try:
            number = float(part)
        except ValueError:
            number = math.nan
        if not number > 0:
            raise ConfigError(f"{option}: found {part.strip()!r}, expected numbers above 0 with commas between")
        numbers.append(number)
    return tuple(numbers)


def json_object(option: str, value: str | None) -> dict[str, Any]:
    """A JSON object; an empty one of no text.

    Raises:
        ConfigError: it is something else.
    """
    try:
        found = {} if value is None else json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{option}: no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{option}: found {value!r}, expected a JSON object")
    return found
