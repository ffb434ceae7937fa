"""`GGUFHeader`: what stands before the data of a GGUF file, checked value by value.

    | magic, version, counts | metadata: key, type, value ... | tensors: name, shape, type, offset ... | data |

The ``gguf`` library's own reader is not used: it takes a file at its word, so that a truncated or damaged one ends in
an IndexError deep inside, or in a loop over a length that was never meant; and it makes an array of each string, which
takes a vocabulary of 262,144 tokens ten seconds.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from vcore.errors import UnsupportedModelError, WeightsError

__all__ = ["GGUFHeader", "StoredTensor", "read_gguf_header"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_ALIGNMENT = 32
_MAX_DIMENSIONS = 8
_MAX_NESTING = 8
"""Arrays in arrays; no known file has even two."""
_FORMATS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}
"""`struct`'s letter for a number, by type."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as the file has it."""

    name: str
    shape: tuple[int, ...]
    """Slowest dimension first, as in torch; the file has it the other way round."""
    kind: GGMLQuantizationType
    offset: int
    """Of its first byte, from the beginning of the file."""
    num_bytes: int

    @property
    def row_bytes(self) -> int:
        """How many bytes the values of the last dimension take."""
        block, size = GGML_QUANT_SIZES[self.kind]
        return int(self.shape[-1] // block * size)


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """The metadata and the tensors of a file."""

    values: Mapping[str, Any]
    """The metadata: numbers, strings, and lists of them."""
    tensors: Mapping[str, StoredTensor]
    """By name, in the order of the file."""


def read_gguf_header(file: Path) -> GGUFHeader:
    """The header of `file`, which is as long as it says.

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
                header = _HeaderWalk(file, data).read()
    except OSError as error:
        raise WeightsError(f"cannot read the GGUF file {file}: {error.strerror}. Check the path.") from error
    expected = max((tensor.offset + tensor.num_bytes for tensor in header.tensors.values()), default=0)
    if size < expected:
        raise WeightsError(
            f"{file} is truncated: it has {size:,} bytes, and its header says at least {expected:,}. The download was "
            "probably interrupted; fetch it again."
        )
    return header


class _HeaderWalk:
    """A walk over the header; `_at` is the position."""

    __slots__ = ("_at", "_data", "_file")

    def __init__(self, file: Path, data: mmap.mmap) -> None:
        self._file = file
        self._data = data
        self._at = len(_MAGIC)

    def read(self) -> GGUFHeader:
        """All of it."""
        self._check_version()
        num_tensors, num_values = self._u64(), self._u64()
        values: dict[str, Any] = {}
        for _ in range(num_values):
            key = self._string()
            values[key] = self._value(self._u32())
        tensors = [self._tensor() for _ in range(num_tensors)]
        alignment = values.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise self._damaged(f"general.alignment is {alignment!r}")
        data_begin = -(-self._at // alignment) * alignment
        return GGUFHeader(
            values,
            {t.name: StoredTensor(t.name, t.shape, t.kind, data_begin + t.offset, t.num_bytes) for t in tensors},
        )

    def _check_version(self) -> None:
        version = self._u32()
        if version not in _VERSIONS:
            order = "; its byte order is probably big-endian" if version & 0xFFFF == 0 else ""
            raise UnsupportedModelError(
                f"{self._file} is GGUF version {version}{order}; vcore reads little-endian versions "
                f"{' and '.join(map(str, _VERSIONS))}. Convert the model again with a current llama.cpp."
            )

    def _tensor(self) -> StoredTensor:
        """The tensor whose entry comes next, its offset counted from the beginning of the data."""
        name, num_dimensions = self._string(), self._u32()
        if num_dimensions > _MAX_DIMENSIONS:
            raise self._damaged(f"tensor {name!r} has {num_dimensions} dimensions")
        shape = tuple(self._u64() for _ in range(num_dimensions))[::-1]
        kind, offset = self._u32(), self._u64()
        try:
            known = GGMLQuantizationType(kind)
            block, size = GGML_QUANT_SIZES[known]
        except (KeyError, ValueError):
            raise UnsupportedModelError(
                f"tensor {name!r} in {self._file} has type {kind}, which the installed gguf library does not know. "
                "Update gguf, or fetch the model in another quantisation, such as Q8_0."
            ) from None
        if shape and shape[-1] % block:
            raise self._damaged(
                f"tensor {name!r} has rows of {shape[-1]} values, which are no whole {known.name} blocks"
            )
        return StoredTensor(name, shape, known, offset, math.prod(shape) // block * size)

    def _value(self, kind: int, nesting: int = 0) -> Any:
        if kind == GGUFValueType.STRING:
            return self._string()
        if kind == GGUFValueType.ARRAY:
            return self._array(nesting)
        if kind in _FORMATS:
            return self._numbers(_FORMATS[GGUFValueType(kind)], 1)[0]
        raise self._damaged(f"a metadata value has the unknown type {kind}")

    def _array(self, nesting: int) -> list[Any]:
        inner, count = self._u32(), self._u64()
        if nesting == _MAX_NESTING:
            raise self._damaged(f"a metadata value has arrays nested more than {_MAX_NESTING} deep")
        if inner in _FORMATS:
            return list(self._numbers(_FORMATS[GGUFValueType(inner)], count))
        if inner == GGUFValueType.STRING:
            return self._strings(count)
        return [self._value(inner, nesting + 1) for _ in range(count)]

    def _numbers(self, letter: str, count: int) -> tuple[Any, ...]:
        begin = self._at
        self._skip(count * struct.calcsize(f"<{letter}"))  # before a format is made of a count that was never meant
        return struct.unpack_from(f"<{count}{letter}", self._data, begin)

    def _strings(self, count: int) -> list[str]:
        """As many calls of `_string`, several times as fast: a vocabulary has hundreds of thousands."""
        data, at, unpack = self._data, self._at, _U64.unpack_from
        strings = []
        try:
            for _ in range(count):
                begin = at + _U64.size
                at = begin + unpack(data, at)[0]
                strings.append(data[begin:at].decode(errors="replace"))
        except (struct.error, OverflowError):  # the position is beyond the end, or beyond every end
            at = max(at, len(data)) + 1
        self._skip(at - self._at)
        return strings

    def _string(self) -> str:
        length = self._u64()
        begin = self._at
        self._skip(length)
        return self._data[begin : self._at].decode(errors="replace")

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
