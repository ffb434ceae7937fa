"""Where the converted copy of a GGUF file may be."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vcore.cache_dir import user_cache_dir
from vcore_model_zoo.loaders.converted_copy import ConvertedCopy, SourceStamp
from vcore_model_zoo.loaders.options import GGUFOptions

__all__ = ["copy_places"]

_GIB = 2**30


def copy_places(file: Path, options: GGUFOptions) -> list[ConvertedCopy]:
    """The places for a copy of `file`, the preferred one first; none if no copy is wanted. Only looks."""
    if not options.converted_copy:
        return []
    key = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16]
    elsewhere = f"{file.stem}-{key}.vcore"
    if options.converted_folder is not None:
        folders = [options.converted_folder / elsewhere]
    else:
        folders = [file.with_name(f"{file.name}.vcore"), user_cache_dir() / "converted" / elsewhere]
    source, limit = SourceStamp.of(file), int(options.max_converted_gib * _GIB)
    return [ConvertedCopy(folder, source, limit) for folder in folders]
