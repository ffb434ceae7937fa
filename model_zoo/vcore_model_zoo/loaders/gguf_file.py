"""`GGUFFile`: a GGUF file, mapped, with its tensors under their Hugging Face names; and the reader over it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from vcore.errors import UnsupportedModelError, WeightsError
from vcore.interfaces.weights import CheckpointReader, TensorInfo
from vcore_model_zoo.loaders.gguf_architectures import GGUFArchitecture, find_architecture
from vcore_model_zoo.loaders.gguf_check import check_gguf
from vcore_model_zoo.loaders.gguf_metadata import GGUFMetadata
from vcore_model_zoo.loaders.shape_check import check_tensor

__all__ = ["GGUFFile", "GGUFReader"]


class GGUFFile:
    """An open file. The ``gguf`` library reads and dequantises; opening takes it seconds."""

    __slots__ = ("_architecture", "_tensors", "config", "has_tokenizer", "infos", "metadata", "path")

    def __init__(self, path: Path) -> None:
        """Open `path`.

        Raises:
            WeightsError: it is truncated, damaged, or no GGUF file.
            UnsupportedModelError: nothing here reads its architecture.
        """
        check_gguf(path)
        self.path = path
        reader = _open(path)
        by_name = {tensor.name: tensor for tensor in reader.tensors}
        self.metadata = GGUFMetadata(
            origin=str(path),
            lookup=lambda key: _value(reader, key),
            shapes={name: _torch_shape(tensor) for name, tensor in by_name.items()},
            tensor_values=lambda name: _dequantize(path, by_name[name], None).reshape(-1).tolist(),
        )
        self._architecture: GGUFArchitecture = find_architecture(self.metadata)
        self.has_tokenizer = reader.get_field("tokenizer.ggml.model") is not None
        self.config: dict[str, Any] = self._make_config()
        mapped = {self._architecture.hf_name(name): tensor for name, tensor in by_name.items()}
        self._tensors = {name: tensor for name, tensor in mapped.items() if name is not None}
        self.infos = {name: TensorInfo(_torch_shape(t), t.tensor_type.name) for name, t in self._tensors.items()}

    def generation_config(self) -> dict[str, Any]:
        """``generation_config.json``: the ids that begin and end a text."""
        lookup = self.metadata.lookup
        ends = [lookup(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot")]
        values = {
            "bos_token_id": lookup("tokenizer.ggml.bos_token_id"),
            "eos_token_id": [token_id for token_id in dict.fromkeys(ends) if token_id is not None] or None,
            "pad_token_id": lookup("tokenizer.ggml.padding_token_id"),
        }
        return {key: value for key, value in values.items() if value is not None}

    def read(self, name: str, index: tuple[slice, ...] | None = None) -> torch.Tensor:
        """The tensor `name` in float32, or a part of it; other rows are not dequantised.

        Raises:
            UnsupportedModelError: the library cannot dequantise its type.
        """
        tensor = self._tensors[name]
        rows, *others = index or (slice(None),)
        order = self._row_order(tensor)
        if order is not None:
            array = _dequantize(self.path, tensor, order[rows])
        else:
            array = _dequantize(self.path, tensor, rows)
        return torch.from_numpy(np.ascontiguousarray(array[(slice(None), *others)]))

    def _make_config(self) -> dict[str, Any]:
        if "token_embd.weight" not in self.metadata.shapes:
            raise WeightsError(f"{self.path} has no token_embd.weight: it holds no whole model. Fetch it again.")
        config = self._architecture.config(self.metadata)
        return {key: value for key, value in config.items() if value is not None}

    def _row_order(self, tensor: Any) -> np.ndarray[Any, Any] | None:
        """Where each row of the Hugging Face tensor stands in the file; None if they are in order.

        llama.cpp rotates neighbouring pairs, Hugging Face halves: within a head, row `2 i + j` of the file is row
        `j * head_dim / 2 + i` of the checkpoint.
        """
        key = self._architecture.heads_key(tensor.name)
        if key is None:
            return None
        num_rows = _torch_shape(tensor)[0]
        # [num_heads, head_dim / 2, 2] -> [num_heads, 2, head_dim / 2]
        return np.arange(num_rows).reshape(self.config[key], -1, 2).swapaxes(1, 2).reshape(num_rows)


class GGUFReader(CheckpointReader):
    """Reads straight from a GGUF file, dequantising what is asked for."""

    def __init__(self, file: GGUFFile) -> None:
        """Read from `file`, which `close` lets go of."""
        self._file: GGUFFile | None = file

    def tensors(self) -> Mapping[str, TensorInfo]:
        return {} if self._file is None else self._file.infos

    def read(self, name: str, shape: tuple[int, ...], index: tuple[slice, ...] | None = None) -> torch.Tensor:
        origin = "a closed checkpoint" if self._file is None else str(self._file.path)
        check_tensor(name, shape, self.tensors(), origin=origin)
        assert self._file is not None
        return self._file.read(name, index)

    def close(self) -> None:
        self._file = None


def _open(path: Path) -> gguf.GGUFReader:
    try:
        return gguf.GGUFReader(path)
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise WeightsError(
            f"{path} ({path.stat().st_size:,} bytes) is no GGUF file that the gguf library reads: "
            f"{type(error).__name__}: {error}. Fetch it again."
        ) from error


def _value(reader: gguf.GGUFReader, key: str) -> Any:
    found = reader.get_field(key)
    return None if found is None else found.contents()


def _torch_shape(tensor: Any) -> tuple[int, ...]:
    """GGUF writes the fastest dimension first."""
    return tuple(int(size) for size in reversed(tensor.shape))


def _dequantize(path: Path, tensor: Any, rows: Any) -> np.ndarray[Any, Any]:
    """Rows of a tensor (a slice, indices, or None for all) as a new float32 array."""
    data = tensor.data if rows is None else tensor.data[rows]
    try:
        return np.array(gguf.quants.dequantize(data, tensor.tensor_type), dtype=np.float32)
    except NotImplementedError:
        raise UnsupportedModelError(
            f"tensor {tensor.name!r} in {path} is of type {tensor.tensor_type.name}, which the installed gguf library "
            "cannot dequantise. Update gguf, or fetch the model in another quantisation, such as Q4_K_M or Q8_0."
        ) from None
