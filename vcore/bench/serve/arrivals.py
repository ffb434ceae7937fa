"""When requests are due: `arrival_times`. Knows nothing of what they ask for."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import numpy.typing as npt

from vcore.errors import ConfigError

__all__ = ["Arrivals", "arrival_times"]


class Arrivals(StrEnum):
    """A law of arrival times."""

    POISSON = "poisson"
    """Independent users: gaps are exponentially distributed."""
    FIXED = "fixed"
    """Equal gaps."""
    BURST = "burst"
    """Several at a time, at equal gaps."""
    TRACE = "trace"
    """As recorded, at the recorded pace or another. `arrival_times` has no part in it."""


def arrival_times(
    law: Arrivals, rate: float, count: int, rng: np.random.Generator, *, burst_size: int = 1
) -> npt.NDArray[np.float64]:
    """Times of `count` arrivals, `rate` of them a second on average.

    Args:
        law: which times; one of those that are drawn or counted out.
        rate: requests a second; infinity for all at once.
        count: how many.
        rng: draws the gaps of `Arrivals.POISSON`.
        burst_size: requests that arrive together under `Arrivals.BURST`, the last of them perhaps fewer.

    Returns:
        Seconds, ascending. The first request arrives at 0: a start without load is no part of a measurement.

    Raises:
        ConfigError: `rate` is not above 0.
    """
    if not rate > 0:
        raise ConfigError(f"a rate of {rate:g} requests a second: expected more than 0")
    if np.isinf(rate):
        return np.zeros(count)
    if law is Arrivals.POISSON:
        gaps = rng.exponential(1 / rate, size=count)
        gaps[:1] = 0
        times: npt.NDArray[np.float64] = np.cumsum(gaps)
        return times
    assert law in (Arrivals.FIXED, Arrivals.BURST)
    size = burst_size if law is Arrivals.BURST else 1
    return np.floor_divide(np.arange(count), size) * (size / rate)
