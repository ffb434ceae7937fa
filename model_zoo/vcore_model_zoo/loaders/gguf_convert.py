"""Makes a `ConvertedCopy` of a GGUF file: safe when killed, and when several processes begin at once."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from vcore.interfaces.sources import ProgressCallback
from vcore_model_zoo.loaders.converted_copy import WEIGHTS_FILE, ConvertedCopy
from vcore_model_zoo.loaders.copy_places import copy_places
from vcore_model_zoo.loaders.gguf_file import GGUFFile
from vcore_model_zoo.loaders.gguf_tokenizer import write_tokenizer
from vcore_model_zoo.loaders.options import GGUFOptions
from vcore_model_zoo.loaders.safetensors_writer import float32_bytes, write_float32
from vcore_model_zoo.storage.atomic import fresh_folder
from vcore_model_zoo.storage.file_lock import FileLock

__all__ = ["convert", "write_model_files"]

logger = logging.getLogger(__name__)

_GIB = 2**30
_SPARE_BYTES = _GIB // 2
"""Disk space that a copy must leave free."""


def convert(
    file: Path, options: GGUFOptions, open_file: Callable[[], GGUFFile], progress: ProgressCallback | None
) -> ConvertedCopy | None:
    """A valid copy of `file`, made if there is none.

    Args:
        file: the GGUF file.
        options: where to keep the copy.
        open_file: opens `file`; called only if there is something to convert.
        progress: told of tensors written.

    Returns:
        The copy, with weights unless they are too large; None if no place can be written or the disk is short, which
        is logged.
    """
    problems = []
    for place in copy_places(file, options):
        if not _can_write(place.folder.parent):
            problems.append(f"{place.folder.parent} cannot be written")
            continue
        try:
            with FileLock(place.lock_file()):
                if not place.is_valid():
                    _make(place, open_file(), progress)
            return place
        except OSError as error:
            problems.append(f"in {place.folder.parent}: {error}")
    if problems:
        logger.warning(
            "no converted copy of %s can be kept, so that every start takes seconds longer (%s); the gguf "
            "loader's option converted_folder names another place",
            file,
            "; ".join(problems),
        )
    return None


def write_model_files(file: GGUFFile, folder: Path) -> None:
    """Write all but the weights: configuration and tokenizer. The latter may take seconds."""
    (folder / "config.json").write_text(json.dumps(file.config, indent=2), encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps(file.generation_config(), indent=2), encoding="utf-8")
    write_tokenizer(file.path, file.metadata, folder)


def _make(place: ConvertedCopy, file: GGUFFile, progress: ProgressCallback | None) -> None:
    logger.info("converting %s, once, into %s", file.path, place.folder)
    weights_bytes = float32_bytes(file.infos)
    wanted = weights_bytes <= place.max_weights_bytes
    if wanted:
        _check_room(place, weights_bytes)
    else:
        logger.warning(
            "the weights of %s would take %.1f GiB as float32, more than the gguf loader's max_converted_gib allows: "
            "they are dequantised at each start",
            file.path,
            weights_bytes / _GIB,
        )
    with fresh_folder(place.work_folder()) as made:
        write_model_files(file, made)
        if wanted:
            _write_weights(made / WEIGHTS_FILE, file, progress)
        place.publish(made, weights_bytes)


def _write_weights(target: Path, file: GGUFFile, progress: ProgressCallback | None) -> None:
    total = float32_bytes(file.infos)
    done = 0

    def read(name: str) -> torch.Tensor:
        nonlocal done
        tensor = file.read(name)
        done += tensor.nbytes
        if progress is not None:
            progress(f"Converting {file.path.name}", done, total)
        return tensor

    write_float32(target, file.infos, read)


def _check_room(place: ConvertedCopy, weights_bytes: int) -> None:
    needed = weights_bytes + _SPARE_BYTES
    free = shutil.disk_usage(place.folder.parent).free
    if free < needed:
        raise OSError(f"it needs {needed / _GIB:.1f} GiB, and {free / _GIB:.1f} GiB are free")


def _can_write(folder: Path) -> bool:
    """Whether `folder`, or the nearest folder above it that exists, can be written."""
    existing = next((parent for parent in (folder, *folder.parents) if parent.exists()), None)
    return existing is not None and os.access(existing, os.W_OK | os.X_OK)
