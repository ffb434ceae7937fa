"""`GGUFMetadata`: what a GGUF file says of its model, as an architecture's table reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vcore.errors import UnsupportedModelError, WeightsError

__all__ = ["GGUFMetadata"]


@dataclass(frozen=True, slots=True)
class GGUFMetadata:
    """What a file says of its model."""

    origin: str
    """The file, for messages."""
    lookup: Callable[[str], Any]
    """The value of a key, or None."""
    shapes: Mapping[str, tuple[int, ...]]
    """Of each tensor, slowest dimension first, as in torch."""
    tensor_values: Callable[[str], list[float]]
    """All values of a tensor."""

    @property
    def architecture(self) -> str:
        """``general.architecture``."""
        return str(self.lookup("general.architecture"))

    def get(self, key: str, default: Any = None) -> Any:
        """The value of ``ARCHITECTURE.key``, floating-point ones as they are written in decimal."""
        value = self.lookup(f"{self.architecture}.{key}")
        if value is None:
            return default
        return _shortest(value) if isinstance(value, float) else value

    def require(self, key: str) -> Any:
        """As `get`, for what must be there.

        Raises:
            WeightsError: it is missing.
        """
        value = self.get(key)
        if value is None:
            raise WeightsError(
                f"{self.origin} has no {self.architecture}.{key}, which every model of this architecture has. "
                "Fetch the file again, or convert the model again with a current llama.cpp."
            )
        return value

    def uniform(self, key: str, default: int | None = None) -> int:
        """As `require`, for a number that may differ by layer in the format and must not here.

        Raises:
            UnsupportedModelError: it differs by layer.
        """
        value = self.require(key) if default is None else self.get(key, default)
        values = set(value) if isinstance(value, list) else {value}
        if len(values) != 1:
            raise UnsupportedModelError(
                f"{self.origin}: {self.architecture}.{key} differs by layer ({sorted(values)}), which the "
                f"{self.architecture} architecture does not provide for. Use a model whose layers are alike."
            )
        return int(values.pop())


def _shortest(value: float) -> float:
    """The shortest decimal that is the same float32: 1e-05, where the file has 9.999999747378752e-06."""
    import numpy as np

    return float(str(np.float32(value)))
