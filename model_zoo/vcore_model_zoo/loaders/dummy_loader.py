"""The ``dummy`` loader: weights made up from a seed, for benchmarks and tests. It needs config.json alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import torch

from vcore.errors import WeightsError
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.weights import CheckpointReader, TensorInfo, WeightLoader, WeightLoaderContext
from vcore_model_zoo.loaders.model_folder import ModelFolder

__all__ = ["DummyLoader", "DummyReader"]

_PERIOD = 1_048_573
"""The length of the tile of random numbers: a prime, so that no two rows of a matrix begin at the same place in it
(unless it has more rows than that), and small enough to make in milliseconds."""
_STD = 0.02


class DummyReader(CheckpointReader):
    """Answers any name with numbers that depend on the seed, the name and the position alone.

    Element `i` of a tensor, in memory order, is ``tile[(start(name) + i) % period]``: normal with standard deviation
    0.02, so that activations stay finite. One-dimensional tensors are ones (norm weights) or zeros (biases).
    """

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        """Make the tile.

        Args:
            seed: whatever number.
            dtype: of every tensor.
        """
        generator = torch.Generator().manual_seed(seed)
        self._tile = (torch.randn(_PERIOD, generator=generator) * _STD).to(dtype)
        self._tiles = {self._tile.device: self._tile}
        """By device, the same."""

    @property
    def synthetic(self) -> bool:
        return True

    def tensors(self) -> Mapping[str, TensorInfo]:
        return {}

    def read(self, name: str, shape: tuple[int, ...], index: tuple[slice, ...] | None = None) -> torch.Tensor:
        return self._made(self._tile, name, shape, index)

    def read_into(
        self, destination: torch.Tensor, name: str, shape: tuple[int, ...], index: tuple[slice, ...] | None = None
    ) -> None:
        """Made where it belongs, so that only the tile goes over the bus."""
        if destination.device not in self._tiles:
            self._tiles[destination.device] = self._tile.to(destination.device)
        destination.copy_(self._made(self._tiles[destination.device], name, shape, index))

    def _made(
        self, tile: torch.Tensor, name: str, shape: tuple[int, ...], index: tuple[slice, ...] | None
    ) -> torch.Tensor:
        """The tensor of that name, or the part of it, where `tile` is."""
        if any(size < 0 for size in shape):
            raise WeightsError(f"tensor {name!r} cannot have shape {shape}: sizes must not be negative")
        if len(shape) < 2:
            fill = torch.zeros if name.endswith("bias") else torch.ones
            whole = fill(shape, dtype=tile.dtype, device=tile.device)
            return whole if index is None else whole[index]
        begin, end, step = (index[0] if index else slice(None)).indices(shape[0])
        if index and step != 1:
            return self._made(tile, name, shape, None)[index]
        num_rows, row = max(0, end - begin), math.prod(shape[1:])
        rows = _numbers(tile, self._start(name) + begin * row, num_rows * row).view(num_rows, *shape[1:])
        return rows[:, *index[1:]] if index else rows

    @staticmethod
    def _start(name: str) -> int:
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") % _PERIOD


def _numbers(tile: torch.Tensor, start: int, count: int) -> torch.Tensor:
    """`count` numbers of the endlessly repeated tile, from position `start` on."""
    numbers = torch.empty(count, dtype=tile.dtype, device=tile.device)
    done = 0
    while done < count:
        offset = (start + done) % _PERIOD
        length = min(_PERIOD - offset, count - done)
        numbers[done : done + length] = tile[offset : offset + length]
        done += length
    return numbers


class DummyLoader(WeightLoader):
    """A folder with ``config.json``, with or without a tokenizer."""

    def __init__(self, *, options: object, context: WeightLoaderContext) -> None:
        """Nothing is read yet; there are no options."""
        self._folder = ModelFolder(context.path)
        self._seed = context.seed

    def config(self) -> HFConfig:
        return self._folder.config()

    def open(self) -> DummyReader:
        config = self.config()
        stated = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
        dtypes = {"bfloat16": torch.bfloat16, "float16": torch.float16}
        return DummyReader(self._seed, dtypes.get(stated, torch.float32))

    def tokenizer_path(self) -> Path | None:
        return self._folder.tokenizer_path()

    def generation_config(self) -> dict[str, object]:
        return self._folder.generation_config()
