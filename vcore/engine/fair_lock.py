"""`FairLock`: a lock that a thread which takes it over and over cannot keep to itself."""

from __future__ import annotations

import threading
from types import TracebackType

__all__ = ["FairLock"]


class FairLock:
    """A context manager. Whoever waits gets the lock after at most one more turn of the present holder.

    A plain lock would let a thread that steps the engine in a loop take it again before a waiting thread
    wakes up. Here all queue at a turnstile, which the first in the queue holds until it has the lock.
    """

    __slots__ = ("_lock", "_turnstile")

    def __init__(self) -> None:
        self._turnstile = threading.Lock()
        self._lock = threading.Lock()

    @property
    def contended(self) -> bool:
        """Whether somebody waits for it."""
        return self._turnstile.locked()

    def __enter__(self) -> None:
        with self._turnstile:
            self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
