"""`Rates`: tokens a second over the last two minutes, for the sparkline of the page."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vcore.engine.records import EngineStatus, RequestRecord, StepRecord

__all__ = ["Rates"]

SECONDS = 120


class Rates:
    """A listener with one slot a second, which is used again two minutes later."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds = [-1] * SECONDS
        self._prompt = [0] * SECONDS
        self._output = [0] * SECONDS

    def on_step(self, record: StepRecord) -> None:
        """Count a step's tokens in the second in which they were known."""
        second = int(record.end)
        slot = second % SECONDS
        if self._seconds[slot] != second:
            self._seconds[slot], self._prompt[slot], self._output[slot] = second, 0, 0
        self._prompt[slot] += record.num_prompt_tokens
        self._output[slot] += record.num_output_tokens

    def on_finished(self, record: RequestRecord) -> None:
        """Nothing: steps tell of tokens."""

    def on_engine(self, status: EngineStatus) -> None:
        """Nothing."""

    def series(self) -> dict[str, list[int]]:
        """Tokens in each of the last whole seconds, the oldest first; the running second is not whole yet."""
        now = int(self._clock())
        slots = [(second % SECONDS, second) for second in range(now - SECONDS + 1, now)]
        return {
            name: [values[slot] if self._seconds[slot] == second else 0 for slot, second in slots]
            for name, values in (("prompt", self._prompt), ("output", self._output))
        }
