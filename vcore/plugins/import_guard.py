"""Running a plugin's registration code so that whatever it does stays its own affair.

Exceptions, SystemExit among them, become data; output becomes data; the time is measured. Only
KeyboardInterrupt passes: it is the user's, not the plugin's.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TextIO, TypeVar

__all__ = ["SLOW_IMPORT_S", "GuardedRun", "describe_exception", "run_guarded"]

SLOW_IMPORT_S = 1.0
"""An import of a registration module that takes longer, in seconds, is reported."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GuardedRun(Generic[T]):
    """What came of a guarded run."""

    value: T | None
    """What was returned; None if it raised."""
    error: BaseException | None
    output: str
    """What was written to stdout and stderr."""
    seconds: float
    imported_torch: bool
    """Whether torch was imported in the course of it."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of it although it may have worked."""
        notes = []
        if self.seconds > SLOW_IMPORT_S:
            notes.append(f"importing its registration module took {self.seconds:.1f} s")
        if self.imported_torch:
            notes.append("its registration module imports torch, which makes every command slow")
        if self.output.strip():
            first_line = self.output.strip().splitlines()[0]
            notes.append(f"it wrote {len(self.output)} characters at import: {first_line[:80]!r}")
        return tuple(notes)


class _CapturingStream(io.TextIOBase):
    """Collects text while `capturing`, then passes it on.

    It outlives its run: a log handler made at import keeps it as its stream, and what that writes
    later must not be lost.
    """

    def __init__(self, original: TextIO, collected: list[str]) -> None:
        self._original = original
        self._collected = collected
        self.capturing = True

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read only here, and TextIOBase has none
        return self._original.encoding

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not self.capturing:
            return self._original.write(text)
        self._collected.append(text)
        return len(text)

    def flush(self) -> None:
        if not self.capturing:
            self._original.flush()

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._original.fileno()


def run_guarded(action: Callable[[], T]) -> GuardedRun[T]:
    """Run `action` and keep what it returned, raised, wrote and took.

    Raises:
        KeyboardInterrupt: passed on.
    """
    collected: list[str] = []
    streams = [_CapturingStream(sys.stdout, collected), _CapturingStream(sys.stderr, collected)]
    had_torch = "torch" in sys.modules
    value: T | None = None
    error: BaseException | None = None
    start = time.perf_counter()
    try:
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            value = action()
    except KeyboardInterrupt:
        raise
    except BaseException as raised:  # SystemExit and its like must not end vcore
        error = raised
    finally:
        for stream in streams:
            stream.capturing = False
    return GuardedRun(
        value=value,
        error=error,
        output="".join(collected),
        seconds=time.perf_counter() - start,
        imported_torch=not had_torch and "torch" in sys.modules,
    )


def describe_exception(error: BaseException) -> str:
    """The exception in one line, as ``ImportError: No module named 'x'``."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
