"""`ModelFolder`: the JSON files that stand beside a model's weights, in Hugging Face's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vcore.errors import ModelError, ModelNotFoundError
from vcore.interfaces.hf_config import HFConfig

__all__ = ["TOKENIZER_FILES", "ModelFolder"]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "tekken.json")
"""A folder with any of these has a tokenizer."""


class ModelFolder:
    """The folder of a model; read when asked."""

    __slots__ = ("path",)

    def __init__(self, path: Path) -> None:
        """Name the folder, or a file in it."""
        self.path = path.parent if path.is_file() else path

    def config(self) -> HFConfig:
        """``config.json``.

        Raises:
            ModelNotFoundError: there is none.
            ModelError: it is no JSON object.
        """
        file = self.path / "config.json"
        if not file.is_file():
            raise ModelNotFoundError(
                f"{self.path} has no config.json, which says how the model is built; it holds "
                f"{_listing(self.path)}. Fetch the whole model, or point model.path at the folder that has it."
            )
        return HFConfig(_read_object(file), origin=str(file))

    def generation_config(self) -> dict[str, object]:
        """``generation_config.json``, or an empty dictionary.

        Raises:
            ModelError: it is no JSON object.
        """
        file = self.path / "generation_config.json"
        return dict(_read_object(file)) if file.is_file() else {}

    def tokenizer_path(self) -> Path | None:
        """The folder, if it has a tokenizer."""
        return self.path if any((self.path / name).exists() for name in TOKENIZER_FILES) else None


def _read_object(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(
            f"{file} ({file.stat().st_size:,} bytes) is no valid JSON: {error}. Fetch the file again."
        ) from error
    if not isinstance(values, dict):
        raise ModelError(f"{file} must hold a JSON object, got {type(values).__name__}. Fetch the file again.")
    return values


def _listing(folder: Path) -> str:
    if not folder.is_dir():
        return "nothing, as there is no such folder"
    names = sorted(entry.name for entry in folder.iterdir())
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "nothing"
