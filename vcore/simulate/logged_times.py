"""`LoggedTimes`: step times taken from an engine's log instead of a model. `logged_trace`: arrivals by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vcore.errors import ConfigError
from vcore.simulate.step_log import StepLog
from vcore.simulate.step_time import StepLoad
from vcore.traces import Trace

__all__ = ["LoggedTimes", "logged_trace"]


class LoggedTimes:
    """The steps of one replica take what the engine's took, one after another."""

    def __init__(self, log: StepLog) -> None:
        """Of these steps."""
        self._seconds = [entry.seconds for entry in log.entries]
        self._next = 0

    def seconds(self, load: StepLoad) -> float:
        """The time of the next step, whatever it computes.

        Raises:
            ConfigError: the engine made no more steps.
        """
        self._check(1)
        self._next += 1
        return self._seconds[self._next - 1]

    def decode_seconds(self, num_rows: int, kv_tokens: int, num_steps: int) -> NDArray[np.float64]:
        """Not given: which steps are made together is not known beforehand."""
        raise NotImplementedError("a log of steps is followed step by step: set FleetOptions.together to False")

    def _check(self, count: int) -> None:
        if self._next + count > len(self._seconds):
            raise ConfigError(
                f"the log has {len(self._seconds)} steps, and the simulation makes more: it is of another trace, or of "
                "other settings"
            )


def logged_trace(trace: Trace, log: StepLog, entered: Sequence[int]) -> Trace:
    """The trace with arrivals at the beginnings of steps, on a clock that stands still where the engine idled.

    Args:
        trace: as the engine served it.
        log: its steps.
        entered: of each request the number of steps before it came in.
    """
    begins = np.concatenate(([0.0], np.cumsum([entry.seconds for entry in log.entries]))).tolist()
    requests = tuple(replace(one, arrival_s=begins[steps]) for one, steps in zip(trace.requests, entered, strict=True))
    return replace(trace, requests=requests)
