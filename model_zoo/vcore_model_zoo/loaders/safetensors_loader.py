"""The ``safetensors`` loader: files are memory-mapped, opened when first read, and sliced without reading the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from vcore.errors import WeightsError
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.weights import CheckpointReader, TensorInfo, WeightLoader, WeightLoaderContext
from vcore_model_zoo.loaders.model_folder import ModelFolder
from vcore_model_zoo.loaders.safetensors_files import find_safetensors
from vcore_model_zoo.loaders.safetensors_header import read_header
from vcore_model_zoo.loaders.shape_check import check_tensor

__all__ = ["SafetensorsLoader", "SafetensorsReader"]


class SafetensorsReader(CheckpointReader):
    """An open set of safetensors files.

    Tied weights are stored once: whoever wants ``lm_head.weight`` of such a model finds that `tensors` has none.
    """

    def __init__(self, files: list[Path]) -> None:
        """Read the headers.

        Raises:
            WeightsError: a file is missing or damaged, or two files hold the same tensor.
        """
        self._tensors: dict[str, TensorInfo] = {}
        self._file_of: dict[str, Path] = {}
        self._opened: dict[Path, Any] = {}
        for file in files:
            for name, info in read_header(file).tensors.items():
                if name in self._tensors:
                    raise WeightsError(
                        f"tensor {name!r} is in two files, {self._file_of[name]} and {file}. Point model.path at the "
                        "file to load, or remove the one that does not belong to the model."
                    )
                self._tensors[name], self._file_of[name] = info, file

    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._tensors

    def read(self, name: str, shape: tuple[int, ...], index: tuple[slice, ...] | None = None) -> torch.Tensor:
        file = self._file_of.get(name)
        info = check_tensor(name, shape, self._tensors, origin=str(file.parent if file else self._places()))
        assert file is not None
        try:
            opened = self._open(file)
            tensor: torch.Tensor
            if index is None or not info.shape:
                tensor = opened.get_tensor(name)
            else:
                tensor = opened.get_slice(name)[index]
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"cannot read tensor {name!r} from {file}: {error}. Fetch the file again.") from error
        return tensor

    def close(self) -> None:
        self._opened.clear()  # each file closes with its last reference; tensors keep their mapping alive
        self._file_of.clear()
        self._tensors.clear()

    def _open(self, file: Path) -> Any:
        if file not in self._opened:
            self._opened[file] = safe_open(str(file), framework="pt", device="cpu")
        return self._opened[file]

    def _places(self) -> str:
        return ", ".join(sorted({str(file) for file in self._file_of.values()})) or "a closed checkpoint"


class SafetensorsLoader(WeightLoader):
    """A folder with ``config.json`` and safetensors files."""

    def __init__(self, *, options: object, context: WeightLoaderContext) -> None:
        """Nothing is read yet; there are no options."""
        self._path = context.path
        self._folder = ModelFolder(context.path)

    def config(self) -> HFConfig:
        return self._folder.config()

    def open(self) -> SafetensorsReader:
        return SafetensorsReader(find_safetensors(self._path))

    def tokenizer_path(self) -> Path | None:
        return self._folder.tokenizer_path()

    def generation_config(self) -> dict[str, object]:
        return self._folder.generation_config()
