"""Which safetensors files a model consists of: one, or the shards that an index lists."""

from __future__ import annotations

import json
import re
from pathlib import Path

from vcore.errors import ModelNotFoundError, WeightsError

__all__ = ["find_safetensors"]

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d+)-of-(?P<count>\d+)\.safetensors")


def find_safetensors(path: Path) -> list[Path]:
    """The files of the model at `path`: a folder, a file, or an index.

    Raises:
        ModelNotFoundError: there is no safetensors file.
        WeightsError: a shard is missing, or it is not clear which files belong to the model.
    """
    if path.is_file():
        return _from_index(path) if path.name.endswith(".index.json") else [path]
    if (path / _INDEX).is_file():
        return _from_index(path / _INDEX)
    if (path / _SINGLE).is_file():
        return [path / _SINGLE]
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise ModelNotFoundError(f"{path} has no .safetensors file and no {_INDEX}. {_other_formats(path)}")
    if len(files) > 1 or _SHARD.fullmatch(files[0].name):
        _check_shards(path, files)
    return files


def _from_index(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{index} is damaged: expected a JSON object with a weight_map ({type(error).__name__}: {error}). "
            "Fetch it again."
        ) from error
    if not all(isinstance(name, str) for name in names):
        raise WeightsError(
            f"{index} is damaged: expected names of files in weight_map, found {names!r:.80}. Fetch it again."
        )
    files = [index.parent / name for name in names]
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise WeightsError(f"{index} names files outside its folder: {', '.join(outside)}. They are not read.")
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise WeightsError(
            f"{len(missing)} of {len(files)} weight files that {index} lists are missing: {', '.join(missing)}. "
            "Fetch the model again; what is there will not be fetched twice."
        )
    return files


def _check_shards(folder: Path, files: list[Path]) -> None:
    """Without an index: the files must be all shards of one set."""
    matches = [_SHARD.fullmatch(file.name) for file in files]
    sets = {
        (match["stem"], int(match["count"])) if match else (file.name, 1)
        for match, file in zip(matches, files, strict=True)
    }
    if len(sets) > 1:
        raise WeightsError(
            f"{folder} has several .safetensors files and no {_INDEX} to say which belong to the model: "
            f"{', '.join(file.name for file in files)}. Point model.path at the one to load."
        )
    ((stem, count),) = sets
    have = {int(match["number"]) for match in matches if match}
    missing = [
        f"{stem}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1) if number not in have
    ]
    if missing:
        raise WeightsError(
            f"{len(missing)} of {count} weight files are missing in {folder}: {', '.join(missing)}. "
            "Fetch the model again."
        )


def _other_formats(folder: Path) -> str:
    pickles = sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
    if pickles:
        return (
            f"It has {', '.join(file.name for file in pickles[:4])}, which are pickles: vcore does not load those, as "
            "they can run any code. Convert them with transformers' save_pretrained."
        )
    if any(folder.glob("*.gguf")):
        return "It has .gguf files: set model.load_format to gguf."
    return "Fetch the whole model, or set model.load_format to dummy for made-up weights."
