"""The header of a safetensors file: names, shapes and where the bytes are.

    | 8 bytes: N, little-endian | N bytes: JSON | tensor data, without gaps |

The format: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcore.errors import WeightsError
from vcore.interfaces.weights import TensorInfo

__all__ = ["DTYPE_NAMES", "SafetensorsHeader", "read_header"]

_LENGTH = struct.Struct("<Q")
_MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""

DTYPE_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""From the format's names to torch's; others are passed on as they are."""


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """What a file says of itself."""

    tensors: dict[str, TensorInfo]
    num_bytes: int
    """How long the whole file is."""


def read_header(file: Path) -> SafetensorsHeader:
    """Read the header and check that the file is as long as it says.

    Raises:
        WeightsError: the file is missing, truncated, or no safetensors file.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            start = opened.read(_LENGTH.size)
            length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else 0
            text = opened.read(length) if 0 < length <= _MAX_HEADER_BYTES else b""
    except OSError as error:
        raise WeightsError(f"cannot read the weights file {file}: {error.strerror}. Fetch it again.") from error
    if not 0 < length <= _MAX_HEADER_BYTES:
        raise WeightsError(
            f"{file} ({size:,} bytes) is no safetensors file: its first 8 bytes should be the length of a header of "
            f"at most {_MAX_HEADER_BYTES:,} bytes and say {length:,}. Fetch it again."
        )
    if len(text) < length:
        raise _truncated(file, size, _LENGTH.size + length)
    tensors, data_bytes = _parse(file, text)
    expected = _LENGTH.size + length + data_bytes
    if size != expected:
        raise _truncated(file, size, expected)
    return SafetensorsHeader(tensors, expected)


def _parse(file: Path, text: bytes) -> tuple[dict[str, TensorInfo], int]:
    """The tensors, and how many bytes of data they take."""
    try:
        entries: dict[str, Any] = json.loads(text)
        entries.pop("__metadata__", None)
        tensors = {
            name: TensorInfo(tuple(entry["shape"]), DTYPE_NAMES.get(entry["dtype"], entry["dtype"]))
            for name, entry in entries.items()
        }
        return tensors, max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise WeightsError(f"{file} has a damaged header ({type(error).__name__}: {error}). Fetch it again.") from error


def _truncated(file: Path, size: int, expected: int) -> WeightsError:
    what = "truncated" if size < expected else "too long"
    return WeightsError(
        f"{file} is {what}: it has {size:,} bytes, and its header says {expected:,}. The download was probably "
        "interrupted; fetch it again."
    )
