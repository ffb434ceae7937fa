"""`Row`: one line of a trace file, whose fields are checked as they are taken. Errors name the file and the line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vcore.errors import ConfigError
from vcore.sampling_params import MAX_TENANT_CHARACTERS

__all__ = ["Row"]


@dataclass(frozen=True, slots=True)
class Row:
    """The fields of a line by name. Values are those of JSON; of a CSV file all are texts."""

    where: str
    """``FILE, line N``."""
    fields: Mapping[str, object]

    def has(self, name: str) -> bool:
        """Whether the field is there with a value."""
        return self.fields.get(name) not in (None, "")

    def first(self, names: Iterable[str]) -> str | None:
        """The first of `names` that is there."""
        return next((name for name in names if self.has(name)), None)

    def number(self, name: str) -> float:
        """A finite number.

        Raises:
            ConfigError: there is none.
        """
        value = self.fields.get(name)
        try:
            if isinstance(value, int | float | str) and not isinstance(value, bool):
                found = float(value)
                if math.isfinite(found):
                    return found
        except (ValueError, OverflowError):
            pass
        raise self.error(name, "a number")

    def integer(self, name: str, *, least: int) -> int:
        """A whole number from `least`.

        Raises:
            ConfigError: it is not.
        """
        try:
            found = self.number(name)
        except ConfigError:
            found = math.nan
        if found != found or found != int(found) or found < least:
            raise self.error(name, f"a whole number from {least}")
        return int(found)

    def text(self, name: str) -> str | None:
        """The field as text; None if it is not there."""
        return str(self.fields[name]) if self.has(name) else None

    def tenant(self, name: str) -> str | None:
        """A tenant's name; None if it is not there.

        Raises:
            ConfigError: it is longer than a request may say.
        """
        found = self.text(name)
        if found is not None and len(found) > MAX_TENANT_CHARACTERS:
            raise ConfigError(
                f"{self.where}: {name} has {len(found)} characters, expected up to {MAX_TENANT_CHARACTERS}"
            )
        return found

    def integers(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers, in a CSV file with spaces between; empty if it is not there.

        Raises:
            ConfigError: it is something else.
        """
        if not self.has(name):
            return ()
        value = self.fields[name]
        items = value.split() if isinstance(value, str) else value
        try:
            if isinstance(items, list) and not any(isinstance(item, bool | float) for item in items):
                return tuple(int(item) for item in items)
        except (TypeError, ValueError):
            pass
        raise self.error(name, "a list of whole numbers")

    def error(self, name: str, expected: str) -> ConfigError:
        """That a field is missing or wrong."""
        if not self.has(name):
            return ConfigError(f"{self.where}: no {name!r}, expected {expected}; there is {', '.join(self.fields)}")
        return ConfigError(f"{self.where}: {name} is {self.fields[name]!r}, expected {expected}")
