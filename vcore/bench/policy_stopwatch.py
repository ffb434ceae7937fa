"""`PolicyStopwatch`: how long a scheduling policy is at work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from vcore.interfaces.scheduling import QueueingPolicy, SchedulingPolicy

__all__ = ["PolicyStopwatch"]

_CALLS = [
    name
    for name in (*vars(SchedulingPolicy), *vars(QueueingPolicy))
    if not name.startswith("_") and callable(getattr(QueueingPolicy, name)) and name != "walk"
]


class PolicyStopwatch:
    """Adds up this thread's processor time in the methods of one policy, each of which costs a microsecond more."""

    def __init__(self, policy: SchedulingPolicy) -> None:
        """Watch `policy` from now on: its class is replaced by one that does the same and is timed."""
        self.seconds = 0.0
        self._is_inside = False
        kind = type(policy)
        methods: dict[str, Any] = {name: self._timed(getattr(kind, name)) for name in _CALLS if hasattr(kind, name)}
        if isinstance(policy, QueueingPolicy):
            walk: Any = kind.walk  # type: ignore[attr-defined]  # a QueueingPolicy has it
            methods["walk"] = lambda policy, now: _TimedWalk(walk(policy, now), self._timed)
        policy.__class__ = type(kind.__name__, (kind,), methods)

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            if self._is_inside:
                return call(*arguments)
            self._is_inside = True
            began = time.thread_time()
            try:
                return call(*arguments)
            finally:
                self.seconds += time.thread_time() - began
                self._is_inside = False

        return timed


class _TimedWalk:
    """An iterator whose steps are timed."""

    def __init__(self, walk: Any, timed: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._next = timed(walk.__next__)
        if hasattr(walk, "close"):
            self.close = timed(walk.close)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._next()
