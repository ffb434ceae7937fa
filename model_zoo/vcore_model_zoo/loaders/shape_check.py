"""The checks that every reader makes before it reads a tensor."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from vcore.errors import WeightsError
from vcore.interfaces.weights import TensorInfo

__all__ = ["check_tensor"]


def check_tensor(name: str, shape: tuple[int, ...], tensors: Mapping[str, TensorInfo], *, origin: str) -> TensorInfo:
    """What is known of tensor `name`, which must be there and have `shape`.

    Raises:
        WeightsError: it is missing or of another shape.
    """
    info = tensors.get(name)
    if info is None:
        close = difflib.get_close_matches(name, tensors, n=3)
        hint = f"close names: {', '.join(close)}" if close else f"it has {len(tensors)} tensors, none of a close name"
        raise WeightsError(
            f"{origin} has no tensor {name!r} ({hint}). Check that the files belong to the model that config.json "
            "describes."
        )
    if info.shape != tuple(shape):
        raise WeightsError(
            f"tensor {name!r} in {origin} has shape {info.shape}, and the model expects {tuple(shape)}. Check that the "
            "files belong to the model that config.json describes."
        )
    return info
