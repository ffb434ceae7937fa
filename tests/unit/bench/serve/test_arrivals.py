"""Arrival times follow their laws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vcore.bench.serve.arrivals import Arrivals, arrival_times
from vcore.errors import ConfigError


def times(law: Arrivals, rate: float, count: int, *, seed: int = 0, burst_size: int = 1) -> list[float]:
    found: list[float] = arrival_times(law, rate, count, np.random.default_rng(seed), burst_size=burst_size).tolist()
    return found


def test_poisson_gaps_are_exponential_and_the_seed_fixes_them() -> None:
    found = times(Arrivals.POISSON, 4.0, 20_001)
    gaps = np.diff(found)
    assert found[0] == 0
    assert gaps.mean() == pytest.approx(0.25, rel=0.03)
    assert gaps.std() == pytest.approx(0.25, rel=0.03)  # as large as the mean: an exponential law's
    assert np.median(gaps) == pytest.approx(0.25 * math.log(2), rel=0.03)
    per_second = np.bincount(np.array(found).astype(int))
    assert per_second.var() / per_second.mean() == pytest.approx(1.0, abs=0.1)
    assert found == times(Arrivals.POISSON, 4.0, 20_001)
    assert found != times(Arrivals.POISSON, 4.0, 20_001, seed=1)


def test_fixed_gaps_are_equal() -> None:
    assert times(Arrivals.FIXED, 2.0, 4) == [0, 0.5, 1.0, 1.5]


def test_bursts_keep_the_mean_rate() -> None:
    assert times(Arrivals.BURST, 2.0, 7, burst_size=3) == [0, 0, 0, 1.5, 1.5, 1.5, 3.0]


@pytest.mark.parametrize("law", [Arrivals.POISSON, Arrivals.FIXED, Arrivals.BURST])
def test_an_infinite_rate_is_all_at_once(law: Arrivals) -> None:
    assert times(law, math.inf, 3, burst_size=2) == [0, 0, 0]


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan])
def test_a_rate_must_be_above_zero(rate: float) -> None:
    with pytest.raises(ConfigError, match="expected more than 0"):
        times(Arrivals.POISSON, rate, 1)
