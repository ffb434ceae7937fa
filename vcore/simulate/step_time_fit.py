"""`fit_step_time`: the model of step times that is nearest to measured steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vcore.errors import ConfigError
from vcore.simulate.step_time import StepLoad, StepTimeModel

__all__ = ["fit_step_time", "relative_errors"]

_FIELDS = ("base_s", "token_s", "prefill_row_s", "pair_s", "prefill_kv_token_s", "decode_row_s", "kv_token_s")
_MOST_KNEE = 1024
_ROUNDS = 4


def fit_step_time(loads: Sequence[StepLoad], seconds: Sequence[float]) -> StepTimeModel:
    """Least squares of relative errors, no coefficient below 0; the knee is the best of those that were measured.

    Errors are relative to what the model says, which takes a few rounds: relative to measured times, the short ones of
    noisy steps would count for more than the long ones, and the model would tell times that are shorter than the mean.

    Args:
        loads: of measured steps.
        seconds: as many, each above 0.

    Raises:
        ConfigError: there are fewer steps than coefficients.
    """
    if len(loads) < len(_FIELDS):
        raise ConfigError(f"{len(loads)} measured steps do not suffice for {len(_FIELDS)} coefficients; measure more")
    times = np.array(seconds, dtype=np.float64)
    knees = sorted({0} | {load.num_tokens for load in loads if load.num_tokens <= _MOST_KNEE})
    scale = times
    for _ in range(_ROUNDS):
        knee, coefficients = _best(loads, times, scale, knees)
        scale = np.maximum(_columns(loads, knee) @ coefficients, times.min())
    return StepTimeModel(knee_tokens=knee, **dict(zip(_FIELDS, coefficients.tolist(), strict=True)))


def _best(
    loads: Sequence[StepLoad], times: NDArray[np.float64], scale: NDArray[np.float64], knees: Sequence[int]
) -> tuple[int, NDArray[np.float64]]:
    """The knee, and the coefficients, with the least squares of errors over `scale`."""
    best, least = (0, np.zeros(len(_FIELDS))), np.inf
    for knee in knees:
        found, error = _non_negative(_columns(loads, knee) / scale[:, None], times / scale)
        # Beyond rounding, so that of equally good knees the first is taken.
        if error < least * (1 - 1e-9):
            best, least = (knee, found), error
    return best


def relative_errors(model: StepTimeModel, loads: Sequence[StepLoad], seconds: Sequence[float]) -> NDArray[np.float64]:
    """How far the model is from each measured step, as a share of that, float64 [n]."""
    told = np.array([model.seconds(load) for load in loads])
    return np.asarray(np.abs(told / np.array(seconds, dtype=np.float64) - 1), dtype=np.float64)


def _columns(loads: Sequence[StepLoad], knee: int) -> NDArray[np.float64]:
    """What each coefficient is multiplied with, float64 [n, 7]."""
    rows = [
        (
            1.0,
            max(load.num_tokens, knee),
            load.num_prefill_rows,
            load.prefill_pairs,
            load.prefill_kv_tokens,
            load.num_decode_rows,
            load.decode_kv_tokens,
        )
        for load in loads
    ]
    return np.array(rows, dtype=np.float64)


def _non_negative(columns: NDArray[np.float64], target: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Coefficients with which the columns sum up to `target`, as nearly as may be, and the sum of squared errors.

    Of a solution with negative coefficients the most negative one is left out, until none is.
    """
    scale = np.maximum(np.abs(columns).max(axis=0), 1e-300)
    scaled = columns / scale
    active = [index for index in range(columns.shape[1]) if np.any(columns[:, index])]
    while True:
        solution = np.linalg.lstsq(scaled[:, active], target, rcond=None)[0]
        if not active or solution.min() >= 0:
            break
        del active[int(solution.argmin())]
    found = np.zeros(columns.shape[1])
    found[active] = solution
    error = float(np.square(scaled @ found - target).sum())
    return found / scale, error
