"""`weighted_percentiles`: of values that each stand for several equal ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["weighted_percentiles"]

_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def weighted_percentiles(values: NDArray[np.float64], weights: NDArray[np.int64]) -> dict[str, float] | None:
    """What `vcore.bench.percentiles.percentiles` gives of the values written out, each as often as it counts.

    Args:
        values: float64 [n].
        weights: int64 [n]: how often each counts.

    Returns:
        ``p50``, ``p90``, ``p99`` (interpolated linearly between ranks) and ``mean``; None of nothing.
    """
    total = int(weights.sum())
    if not total:
        return None
    order = np.argsort(values, kind="stable")
    sorted_values, ends = values[order], np.cumsum(weights[order])

    def at(share: float) -> float:
        rank = share * (total - 1)
        low = int(rank)
        # The value at a rank is the first whose end is beyond it.
        first, second = sorted_values[np.searchsorted(ends, (low, min(low + 1, total - 1)), side="right")].tolist()
        return float(first + (second - first) * (rank - low))

    mean = float(np.dot(values, weights) / total)
    return {name: at(share) for name, share in _SHARES.items()} | {"mean": mean}
