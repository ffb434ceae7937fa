"""`GGUFFile`: a GGUF file, mapped, with its tensors under their Hugging Face names; and the reader over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vcore.errors import WeightsError
from vcore.interfaces.weights import CheckpointReader, TensorInfo
from vcore_model_zoo.loaders.gguf_architecture import GGUFArchitecture
from vcore_model_zoo.loaders.gguf_architectures import find_architecture
from vcore_model_zoo.loaders.gguf_dequantize import Array, dequantize
from vcore_model_zoo.loaders.gguf_embedding import embedding_config
from vcore_model_zoo.loaders.gguf_header import StoredTensor, read_gguf_header
from vcore_model_zoo.loaders.gguf_metadata import GGUFMetadata
from vcore_model_zoo.loaders.shape_check import check_tensor

__all__ = ["GGUFFile", "GGUFReader"]


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a Hugging Face tensor comes from."""

    tensor: StoredTensor
    expert: int | None = None
    """Which matrix of the tensor it is; None: all of it."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape if self.expert is None else self.tensor.shape[1:]


class GGUFFile:
    """An open file."""

    __slots__ = ("_architecture", "_data", "_sources", "config", "infos", "metadata", "path")

    def __init__(self, path: Path) -> None:
        """Open `path`.

        Raises:
            WeightsError: it is truncated, damaged, or no GGUF file.
            UnsupportedModelError: nothing here reads its architecture.
        """
        header = read_gguf_header(path)
        self.path = path
        self._data: Array = np.memmap(path, dtype=np.uint8, mode="r")
        self.metadata = GGUFMetadata(
            origin=str(path),
            lookup=header.values.get,
            shapes={name: tensor.shape for name, tensor in header.tensors.items()},
            tensor_values=lambda name: self._values(_Source(header.tensors[name]), slice(None)).reshape(-1).tolist(),
        )
        self._architecture: GGUFArchitecture = find_architecture(self.metadata)
        self.config: dict[str, Any] = self._make_config()
        self._sources = self._map_names(header.tensors)
        self.infos = {name: TensorInfo(source.shape, source.tensor.kind.name) for name, source in self._sources.items()}

    def generation_config(self) -> dict[str, Any]:
        """``generation_config.json``: the ids that begin and end a text."""
        lookup = self.metadata.lookup
        ends = [lookup(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot")]
        tokens = lookup("tokenizer.ggml.tokens") or []
        ends += [tokens.index(token) for token in self._architecture.ends if token in tokens]
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
        source = self._sources[name]
        rows, *others = index or (slice(None),)
        order = self._row_order(source)
        values = self._values(source, rows if order is None else order[rows])
        values -= np.float32(self._architecture.offset(source.tensor.name))
        return torch.from_numpy(np.ascontiguousarray(values[(slice(None), *others)]))

    def _values(self, source: _Source, rows: slice | Array) -> Array:
        """Rows of a tensor, or values of a vector, as a new float32 array."""
        tensor = source.tensor
        raw = self._data[tensor.offset : tensor.offset + tensor.num_bytes]
        if len(source.shape) < 2:
            whole = dequantize(tensor, raw.reshape(1, -1), origin=str(self.path)).reshape(source.shape)
            return whole[rows] if source.shape else whole
        # [*shape[:-1], row_bytes]
        stored = raw.reshape(*tensor.shape[:-1], tensor.row_bytes)
        wanted = (stored if source.expert is None else stored[source.expert])[rows]
        flat = dequantize(tensor, wanted.reshape(-1, tensor.row_bytes), origin=str(self.path))
        return flat.reshape(*wanted.shape[:-1], tensor.shape[-1])

    def _make_config(self) -> dict[str, Any]:
        if "token_embd.weight" not in self.metadata.shapes:
            raise WeightsError(f"{self.path} has no token_embd.weight: it holds no whole model. Fetch it again.")
        config = self._architecture.config(self.metadata) | embedding_config(self.metadata)
        return {key: value for key, value in config.items() if value is not None}

    def _map_names(self, tensors: Mapping[str, StoredTensor]) -> dict[str, _Source]:
        sources: dict[str, _Source] = {}
        for name, tensor in tensors.items():
            split = self._architecture.holds_experts(name)
            for number, hf_name in enumerate(self._architecture.hf_names(name, tensor.shape)):
                sources[hf_name] = _Source(tensor, number if split else None)
        return sources

    def _row_order(self, source: _Source) -> Array | None:
        """Where each row of the Hugging Face tensor stands in the file; None if they are in order.

        llama.cpp rotates neighbouring pairs, Hugging Face halves: within a head, row `2 i + j` of the file is row
        `j * head_dim / 2 + i` of the checkpoint.
        """
        key = self._architecture.heads_key(source.tensor.name)
        if key is None:
            return None
        num_rows = source.shape[0]
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
