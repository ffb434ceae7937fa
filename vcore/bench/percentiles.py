"""`percentiles`: how times are summed up in every benchmark."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["percentiles"]


def percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    """``p50``, ``p90``, ``p99`` (interpolated linearly between ranks) and ``mean``; None of nothing."""
    if not len(seconds):
        return None
    p50, p90, p99 = np.percentile(seconds, (50, 90, 99)).tolist()
    return {"p50": p50, "p90": p90, "p99": p99, "mean": float(np.mean(seconds))}
