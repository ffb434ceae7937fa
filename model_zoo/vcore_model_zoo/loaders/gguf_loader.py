"""The ``gguf`` loader: from a converted copy where there is one, and otherwise from the file itself."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vcore.errors import ModelNotFoundError, UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.weights import CheckpointReader, WeightLoader, WeightLoaderContext
from vcore_model_zoo.loaders.converted_copy import ConvertedCopy, SourceStamp
from vcore_model_zoo.loaders.model_folder import ModelFolder
from vcore_model_zoo.loaders.options import GGUFOptions
from vcore_model_zoo.loaders.safetensors_loader import SafetensorsReader

if TYPE_CHECKING:
    from vcore_model_zoo.loaders.gguf_file import GGUFFile

__all__ = ["GGUFLoader"]


class GGUFLoader(WeightLoader):
    """One GGUF file. With a converted copy neither ``gguf`` nor transformers is imported."""

    def __init__(self, *, options: GGUFOptions | None, context: WeightLoaderContext) -> None:
        """Nothing is read yet."""
        self._options = options or GGUFOptions()
        self._path = context.path
        self._progress = context.progress
        self._file: GGUFFile | None = None
        self._copy: ConvertedCopy | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def config(self) -> HFConfig:
        copy = self._valid_copy()
        if copy is not None:
            return ModelFolder(copy.folder).config()
        return HFConfig(self._open_file().config, origin=str(self._gguf_path()))

    def generation_config(self) -> dict[str, object]:
        copy = self._valid_copy()
        if copy is not None:
            return ModelFolder(copy.folder).generation_config()
        return self._open_file().generation_config()

    def tokenizer_path(self) -> Path | None:
        copy = self._valid_copy() or self._convert()
        return ModelFolder(copy.folder).tokenizer_path()

    def open(self) -> CheckpointReader:
        if self._valid_copy() is None:
            self._convert()
        return self.open_headers()

    def open_headers(self) -> CheckpointReader:
        copy = self._valid_copy()
        if copy is not None and copy.has_weights:
            return SafetensorsReader([copy.weights])
        from vcore_model_zoo.loaders.gguf_file import GGUFReader

        return GGUFReader(self._open_file())

    def _valid_copy(self) -> ConvertedCopy | None:
        """The copy, checked once."""
        if self._copy is None:
            from vcore_model_zoo.loaders.copy_places import copy_places

            places = copy_places(self._gguf_path(), self._options)
            self._copy = next((place for place in places if place.is_valid()), None)
        return self._copy

    def _convert(self) -> ConvertedCopy:
        """Make the copy; where none can be kept, one without weights for as long as this loader lives."""
        from vcore_model_zoo.loaders.gguf_convert import convert, write_model_files

        path = self._gguf_path()
        self._copy = convert(path, self._options, self._open_file, self._progress)
        if self._copy is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="vcore-")
            folder = Path(self._temporary.name)
            write_model_files(self._open_file(), folder)
            self._copy = ConvertedCopy(folder, SourceStamp.of(path), max_weights_bytes=0)
        return self._copy

    def _open_file(self) -> GGUFFile:
        from vcore_model_zoo.loaders.gguf_file import GGUFFile

        if self._file is None:
            self._file = GGUFFile(self._gguf_path())
        return self._file

    def _gguf_path(self) -> Path:
        """The one file: the path itself, or the only one in the folder."""
        if self._path.is_file():
            return self._path
        files = sorted(self._path.glob("*.gguf"))
        if not files:
            raise ModelNotFoundError(f"{self._path} has no .gguf file; check the path, or set model.load_format")
        if len(files) > 1 and "-of-" in files[0].name:
            raise UnsupportedModelError(
                f"{self._path} holds a GGUF model in {len(files)} pieces, which are not read; join them with "
                "llama.cpp's llama-gguf-split --merge"
            )
        if len(files) > 1:
            raise ModelNotFoundError(
                f"{self._path} has {len(files)} .gguf files: {', '.join(file.name for file in files)}. Point "
                "model.path at the one to load."
            )
        return files[0]
