"""From the blocks of a GGUF tensor to float32. The ``gguf`` library does the arithmetic."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np

from vcore.errors import UnsupportedModelError
from vcore_model_zoo.loaders.gguf_header import StoredTensor

__all__ = ["dequantize"]

_CHUNK_VALUES = 1 << 18
"""How many values at a time: their intermediate results fit the processor's cache, which makes it two to three times
as fast as whole tensors, and take no memory to speak of."""

Array = np.ndarray[Any, np.dtype[Any]]


def dequantize(tensor: StoredTensor, rows: Array, *, origin: str) -> Array:
    """The values of some rows.

    Args:
        tensor: what they are rows of.
        rows: uint8 [num_rows, bytes of a row].
        origin: the file, for messages.

    Returns:
        float32 [num_rows, size of the last dimension], new.

    Raises:
        UnsupportedModelError: the library cannot dequantise this type.
    """
    values = np.empty((len(rows), tensor.shape[-1]), dtype=np.float32)
    step = max(1, _CHUNK_VALUES // max(1, tensor.shape[-1]))
    try:
        for begin in range(0, len(rows), step):
            part = np.ascontiguousarray(rows[begin : begin + step])
            values[begin : begin + step] = gguf.quants.dequantize(part, tensor.kind)
    except NotImplementedError:
        raise UnsupportedModelError(
            f"tensor {tensor.name!r} in {origin} is of type {tensor.kind.name}, which the installed gguf library "
            "cannot dequantise. Update gguf, or fetch the model in another quantisation, such as Q4_K_M or Q8_0."
        ) from None
    return values
