"""Whether a file is a whole GGUF file: its header is walked, value by value, before the ``gguf`` library maps it.

The library takes a file at its word, so a truncated or damaged one ends in an IndexError deep inside, or in a loop
over a length that was never meant.

    | magic, version, counts | metadata: key, type, value ... | tensors: name, shape, type, offset ... | data |

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from vcore.errors import UnsupportedModelError, WeightsError

__all__ = ["check_gguf"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_ALIGNMENT = 32
_MAX_DIMENSIONS = 8
_MAX_NESTING = 8
"""Arrays in arrays; no known file has even two."""
_SIZES = {
    GGUFValueType.UINT8: 1,
    GGUFValueType.INT8: 1,
    GGUFValueType.BOOL: 1,
    GGUFValueType.UINT16: 2,
    GGUFValueType.INT16: 2,
    GGUFValueType.UINT32: 4,
    GGUFValueType.INT32: 4,
    GGUFValueType.FLOAT32: 4,
    GGUFValueType.UINT64: 8,
    GGUFValueType.INT64: 8,
    GGUFValueType.FLOAT64: 8,
}
"""Bytes of a value, by type."""


def check_gguf(file: Path) -> None:
    """Check that `file` is a GGUF file and as long as its header says.

    Raises:
        WeightsError: it is missing, truncated, damaged, or something else.
        UnsupportedModelError: it is of a version or byte order that is not read.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            start = opened.read(len(_MAGIC))
            if start != _MAGIC:
                raise WeightsError(
                    f"{file} ({size:,} bytes) is no GGUF file: it begins with {start!r} instead of {_MAGIC!r}. "
                    "Fetch it again, or check the path."
                )
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
                expected = _HeaderWalk(file, data).expected_size()
    except OSError as error:
        raise WeightsError(f"cannot read the GGUF file {file}: {error.strerror}. Check the path.") from error
    if size < expected:
        raise WeightsError(
            f"{file} is truncated: it has {size:,} bytes, and its header says at least {expected:,}. The download was "
            "probably interrupted; fetch it again."
        )


class _HeaderWalk:
    """A walk over the header; `_at` is the position."""

    __slots__ = ("_at", "_data", "_file")

    def __init__(self, file: Path, data: mmap.mmap) -> None:
        self._file = file
        self._data = data
        self._at = len(_MAGIC)

    def expected_size(self) -> int:
        """The least number of bytes that the whole file has."""
        version = self._u32()
        if version not in _VERSIONS:
            order = "; its byte order is probably big-endian" if version & 0xFFFF == 0 else ""
            raise UnsupportedModelError(
                f"{self._file} is GGUF version {version}{order}; vcore reads little-endian versions "
                f"{' and '.join(map(str, _VERSIONS))}. Convert the model again with a current llama.cpp."
            )
        num_tensors, num_values = self._u64(), self._u64()
        alignment = _ALIGNMENT
        for _ in range(num_values):
            key, kind = self._string(), self._u32()
            if key == b"general.alignment" and kind == GGUFValueType.UINT32:
                alignment = max(1, _U32.unpack_from(self._data, self._at)[0])
            self._skip_value(kind)
        ends = [self._tensor_end() for _ in range(num_tensors)]
        return -(-self._at // alignment) * alignment + max(ends, default=0)

    def _tensor_end(self) -> int:
        """Where the tensor whose entry comes next ends, counted from the beginning of the data."""
        name = self._string()
        num_dimensions = self._u32()
        if num_dimensions > _MAX_DIMENSIONS:
            raise self._damaged(f"tensor {name!r} has {num_dimensions} dimensions")
        count = math.prod(self._u64() for _ in range(num_dimensions))
        kind, offset = self._u32(), self._u64()
        try:
            block, num_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (KeyError, ValueError):
            raise UnsupportedModelError(
                f"tensor {name.decode(errors='replace')!r} in {self._file} has type {kind}, which the installed gguf "
                "library does not know. Update gguf, or fetch the model in another quantisation, such as Q8_0."
            ) from None
        return int(offset + count // block * num_bytes)

    def _skip_value(self, kind: int, nesting: int = 0) -> None:
        if kind == GGUFValueType.STRING:
            self._string()
        elif kind == GGUFValueType.ARRAY:
            inner, count = self._u32(), self._u64()
            if nesting == _MAX_NESTING:
                raise self._damaged(f"a metadata value has arrays nested more than {_MAX_NESTING} deep")
            if inner in _SIZES:
                self._skip(count * _SIZES[GGUFValueType(inner)])
                return
            for _ in range(count):
                self._skip_value(inner, nesting + 1)
        elif kind in _SIZES:
            self._skip(_SIZES[GGUFValueType(kind)])
        else:
            raise self._damaged(f"a metadata value has the unknown type {kind}")

    def _string(self) -> bytes:
        length = self._u64()
        begin = self._at
        self._skip(length)
        return self._data[begin : self._at]

    def _u32(self) -> int:
        self._skip(_U32.size)
        return int(_U32.unpack_from(self._data, self._at - _U32.size)[0])

    def _u64(self) -> int:
        self._skip(_U64.size)
        return int(_U64.unpack_from(self._data, self._at - _U64.size)[0])

    def _skip(self, num_bytes: int) -> None:
        self._at += num_bytes
        if self._at > len(self._data):
            raise self._damaged(f"its header goes on to byte {self._at:,}")

    def _damaged(self, what: str) -> WeightsError:
        return WeightsError(
            f"{self._file} is truncated or damaged: it has {len(self._data):,} bytes, and {what}. Fetch it again."
        )
