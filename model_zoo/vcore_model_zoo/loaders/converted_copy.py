"""`ConvertedCopy`: what a GGUF file holds, once more, in the form that loads in a fraction of a second.

    FILE.gguf.vcore/   manifest.json  config.json  generation_config.json  tokenizer.json ...  model.safetensors

The manifest names the file that was converted, by size and time, and the SHA-256 of each file made from it. A copy
that does not fit, by whatever cause, is made again. The weights, far larger than the rest, are checked by size and
header only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from vcore.errors import WeightsError
from vcore_model_zoo.loaders.safetensors_header import read_header
from vcore_model_zoo.storage.atomic import publish_folder, sync
from vcore_model_zoo.storage.checksums import sha256_of

__all__ = ["WEIGHTS_FILE", "ConvertedCopy", "SourceStamp"]

WEIGHTS_FILE = "model.safetensors"
_MANIFEST = "manifest.json"
_FORMAT = 2
"""Raise it whenever the conversion writes something else from the same file."""


@dataclass(frozen=True, slots=True)
class SourceStamp:
    """Which state of which file was converted."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, file: Path) -> SourceStamp:
        """The state that `file` is in."""
        stat = file.stat()
        return cls(stat.st_size, stat.st_mtime_ns)

    def as_json(self) -> dict[str, int]:
        """As the manifest has it."""
        return {"size": self.size, "mtime_ns": self.mtime_ns}


@dataclass(frozen=True, slots=True)
class ConvertedCopy:
    """The copy in `folder`, of the file that `source` tells; it need not exist, or fit."""

    folder: Path
    source: SourceStamp
    max_weights_bytes: int
    """Larger weights are left out of a copy."""

    @property
    def weights(self) -> Path:
        """The float32 weights."""
        return self.folder / WEIGHTS_FILE

    @property
    def has_weights(self) -> bool:
        """Whether it was made with weights."""
        return self.weights.exists()

    def is_valid(self) -> bool:
        """Whether it is there, whole, and made from this state of the file by this conversion."""
        try:
            manifest = json.loads((self.folder / _MANIFEST).read_text(encoding="utf-8"))
            if manifest["format"] != _FORMAT or manifest["source"] != self.source.as_json():
                return False
            if manifest["weights_bytes"] <= self.max_weights_bytes:
                read_header(self.weights)
            return all(sha256_of(self.folder / name) == digest for name, digest in manifest["files"].items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, WeightsError):
            return False

    def publish(self, made: Path, weights_bytes: int) -> None:
        """Make the finished folder `made`, on the same file system, this copy; the manifest is written here.

        Args:
            made: holds the files.
            weights_bytes: how many bytes the weights take, whether they are among the files or not.

        Raises:
            OSError: the disk is full, or the old copy cannot be replaced.
        """
        weights = made / WEIGHTS_FILE
        manifest = {
            "format": _FORMAT,
            "source": self.source.as_json(),
            "weights_bytes": weights_bytes,
            "files": {file.name: sha256_of(file) for file in sorted(made.iterdir()) if file != weights},
        }
        (made / _MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        for file in made.iterdir():
            sync(file)
        publish_folder(made, self.folder)

    def work_folder(self) -> Path:
        """Where to make it: beside it, under a name of its own."""
        return self.folder.with_name(f".{self.folder.name}.partial")

    def lock_file(self) -> Path:
        """What to lock while making it."""
        return self.folder.with_name(f".{self.folder.name}.lock")
