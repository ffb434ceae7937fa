"""`HFConfig`: a model's ``config.json``, read only. It knows no architecture and imports no transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vcore.errors import UnsupportedModelError

__all__ = ["HFConfig"]


class HFConfig(Mapping[str, Any]):
    """The key-value pairs of a model's ``config.json``.

    A nested object comes back as an `HFConfig`, too. Keys read as attributes (``config.hidden_size``)
    must exist; read optional ones with ``config.get(key, default)``.

    Raises:
        UnsupportedModelError: an attribute is read that the file does not have.
    """

    __slots__ = ("_values", "origin")

    def __init__(self, values: Mapping[str, Any], origin: str = "config.json") -> None:
        self._values = dict(values)
        self.origin = origin

    def __getitem__(self, key: str) -> Any:  # values are whatever JSON holds
        value = self._values[key]
        return HFConfig(value, f"{self.origin}[{key}]") if isinstance(value, dict) else value

    def __getattr__(self, key: str) -> Any:
        if key.startswith("_"):
            raise AttributeError(key)
        try:
            return self[key]
        except KeyError:
            raise UnsupportedModelError(
                f"{self.origin} has no {key!r}, which this architecture needs; it has: "
                f"{', '.join(sorted(self._values))}. Check that the file is complete."
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"HFConfig({self._values!r})"

    @property
    def architectures(self) -> tuple[str, ...]:
        """``architectures``, empty if the file names none."""
        return tuple(self._values.get("architectures") or ())

    def to_dict(self) -> dict[str, Any]:
        """A copy as plain dictionaries."""
        return dict(self._values)
