"""`FileLock`: one process, and one thread in it, at a time.

The operating system holds the lock and lets go when the process ends, however it ends: there is no stale lock.
The file itself stays, empty; removing it would let two processes hold locks on two files of one name.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from types import TracebackType

__all__ = ["FileLock"]

logger = logging.getLogger(__name__)

_POLL_S = 0.2
"""How often Windows, which has no lock call that can be interrupted, tries again."""


class FileLock:
    """A context manager that holds an exclusive lock on a file.

    Raises:
        OSError: the file cannot be made, or its file system has no locks.
    """

    __slots__ = ("_file", "_path")

    def __init__(self, path: Path) -> None:
        """Name the lock; `path` is made, with its folder, when the lock is taken."""
        self._path = path
        self._file: int | None = None

    def __enter__(self) -> FileLock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _try_lock(self._file):
                logger.info("waiting for another process to finish with %s", self._path)
                _wait_for_lock(self._file)
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)  # which lets go of the lock, too
            self._file = None


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: int) -> bool:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _wait_for_lock(file: int) -> None:
        while not _try_lock(file):
            time.sleep(_POLL_S)

else:
    import fcntl

    def _try_lock(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _wait_for_lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)
