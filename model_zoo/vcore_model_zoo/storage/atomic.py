"""Files and folders that appear whole or not at all, whenever the process is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

__all__ = ["fresh_folder", "publish_folder", "sync"]


@contextlib.contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """An empty folder `path` to work in, gone afterwards. Whatever a killed process left there goes first.

    The caller holds a lock that keeps others from the same `path`.
    """
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def publish_folder(made: Path, target: Path) -> None:
    """Give the finished folder `made` its name `target`, on the same file system; what was there goes.

    Between the two renames there is no `target`: a reader sees the old folder, none, or the new one, never a mixture.

    Raises:
        OSError: `target` could not be replaced, on Windows because a process has one of its files open.
    """
    if target.exists():
        old = target.with_name(f".{target.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(target, old)
        shutil.rmtree(old, ignore_errors=True)
    os.replace(made, target)


def sync(file: Path) -> None:
    """Wait until the contents of `file` are on the disk."""
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())
