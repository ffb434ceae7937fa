"""A checkpoint that is a dictionary, for tests of models and of the loading of weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vcore.errors import WeightsError
from vcore.interfaces.weights import CheckpointReader, TensorInfo

__all__ = ["MemoryCheckpoint"]


class MemoryCheckpoint(CheckpointReader):
    """Serves tensors from a mapping of names, such as a Hugging Face model's ``state_dict()``."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors

    def tensors(self) -> Mapping[str, TensorInfo]:
        return {
            name: TensorInfo(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in self._tensors.items()
        }

    def read(self, name: str, shape: tuple[int, ...], index: tuple[slice, ...] | None = None) -> torch.Tensor:
        if name not in self._tensors:
            raise WeightsError(f"{name!r} is not in the checkpoint, which has {', '.join(sorted(self._tensors))}")
        tensor = self._tensors[name]
        if tuple(tensor.shape) != shape:
            raise WeightsError(f"{name!r} has shape {list(tensor.shape)}, but the model expects {list(shape)}")
        return tensor if index is None else tensor[index]
