"""Writes a safetensors file tensor by tensor, so that memory holds one of them at a time."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from vcore.interfaces.weights import TensorInfo

__all__ = ["float32_bytes", "write_float32"]

_ALIGNMENT = 64
"""The data begin at a multiple of this, so that mapped tensors are aligned for vector instructions."""


def float32_bytes(tensors: Mapping[str, TensorInfo]) -> int:
    """How many bytes the tensors take in float32."""
    return 4 * sum(math.prod(info.shape) for info in tensors.values())


def write_float32(file: Path, tensors: Mapping[str, TensorInfo], read: Callable[[str], torch.Tensor]) -> None:
    """Write `tensors` in float32.

    Args:
        file: made anew.
        tensors: names and shapes, in the order in which they are stored.
        read: gives each tensor, on the CPU.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, info in tensors.items():
        begin, end = end, end + 4 * math.prod(info.shape)
        entries[name] = {"dtype": "F32", "shape": list(info.shape), "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-(8 + len(header)) % _ALIGNMENT)
    with file.open("wb") as opened:
        opened.write(struct.pack("<Q", len(header)))
        opened.write(header)
        for name in tensors:
            read(name).to(torch.float32).contiguous().numpy().tofile(opened)
