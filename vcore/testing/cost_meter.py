"""`CostMeter`: what a policy's methods cost, counted instead of timed, so that tests can assert it."""

from __future__ import annotations

import statistics
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["CostMeter"]


class CostMeter:
    """Counts what one policy does: Python's instructions in its methods, and memory that each call takes for a time.

    The first shows loops, the second sorting and copying, which run in C. What neither shows, such as ``min`` over a
    list, is for ``vcore bench overhead`` to find.
    """

    def __init__(self, policy: object, calls: Sequence[str]) -> None:
        """Watch `policy` from now on: its class is replaced by one that does the same and is counted.

        Args:
            policy: which.
            calls: its methods; those that return an iterator are counted item by item.
        """
        self._is_on = False
        self._is_inside = False
        self._instructions: list[int] = []
        self._bytes: list[int] = []
        kind = type(policy)
        counted = {name: self._counted(getattr(kind, name)) for name in calls if hasattr(kind, name)}
        policy.__class__ = type(kind.__name__, (kind,), counted)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Count what happens meanwhile, as one turn."""
        self._instructions.append(0)
        self._bytes.append(0)
        was_tracing = tracemalloc.is_tracing()
        if not was_tracing:
            tracemalloc.start()
        self._is_on = True
        try:
            yield
        finally:
            self._is_on = False
            if not was_tracing:
                tracemalloc.stop()

    @property
    def instructions(self) -> float:
        """Of a turn, on average: work that is put off is work."""
        return statistics.fmean(self._instructions)

    @property
    def num_bytes(self) -> float:
        """Most that each call of a turn took beyond what was there, added up; the median, as a table may grow once."""
        return statistics.median(self._bytes)

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            if not self._is_on or self._is_inside:
                return call(*arguments)
            with self._count():
                answer = call(*arguments)
            return _CountedIterator(answer, self._counted) if isinstance(answer, Iterator) else answer

        return counted

    @contextmanager
    def _count(self) -> Iterator[None]:
        self._is_inside = True
        tracemalloc.reset_peak()
        there, _ = tracemalloc.get_traced_memory()
        previous = sys.gettrace()
        # Python 3.12 traces instructions only if some frame has asked for them before tracing begins.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(previous)
            _, peak = tracemalloc.get_traced_memory()
            self._bytes[-1] += max(0, peak - there)
            self._is_inside = False

    def _trace(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        if event == "opcode":
            self._instructions[-1] += 1
        return self._trace


class _CountedIterator:
    """An iterator whose steps are counted."""

    def __init__(self, iterator: Any, counted: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._next = counted(iterator.__next__)
        if hasattr(iterator, "close"):
            self.close = counted(iterator.close)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._next()
