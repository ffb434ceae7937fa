"""`ConfigTables`: how a backend's kernels are compiled and spread, by the shapes that they compute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

__all__ = ["ConfigTables"]


class ConfigTables:
    """The tables of a JSON file, read when first asked for.

    A table is a list of ``{"limits": {...}, "use": {...}}``, from narrow limits to none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _tables(self) -> dict[str, list[dict[str, dict[str, Any]]]]:
        tables: dict[str, list[dict[str, dict[str, Any]]]] = json.loads(self._path.read_text(encoding="utf-8"))[
            "tables"
        ]
        return tables

    def first_fit(self, table: str, shape: Mapping[str, int]) -> dict[str, Any]:
        """The values of the first entry of `table` none of whose limits `shape` exceeds.

        Raises:
            LookupError: there is none.
        """
        for entry in self._tables[table]:
            if all(shape[name] <= limit for name, limit in entry["limits"].items()):
                return entry["use"]
        raise LookupError(
            f"{self._path.name} has no {table} entry for {dict(shape)}; its last entry should have no limits"
        )
