"""`ProcessorPool`: the logits processors of one engine, each made when it is first asked for, by any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

from vcore.interfaces.logits import LogitsProcessor

__all__ = ["ProcessorPool"]


class ProcessorPool:
    """Makes a processor once. What prepares requests and what runs steps get the same one."""

    def __init__(self, make: Callable[[str], LogitsProcessor]) -> None:
        """Make processors with `make`, which takes a name and raises `PluginError` if that is of no use."""
        self._make = make
        self._made: dict[str, LogitsProcessor] = {}
        self._lock = threading.Lock()

    def another(self) -> ProcessorPool:
        """A pool of other processors, made the same way: each rank has rows of its own to keep track of."""
        return ProcessorPool(self._make)

    def get(self, name: str) -> LogitsProcessor:
        """The processor called `name`; raises what making it raises."""
        made = self._made.get(name)
        if made is None:
            with self._lock:
                made = self._made.get(name)
                if made is None:
                    made = self._made[name] = self._make(name)
        return made
