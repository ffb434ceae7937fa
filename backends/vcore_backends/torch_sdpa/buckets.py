"""Which rows of a ragged decode batch are padded to a common length. It knows only lengths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bucket", "BucketLimits", "bucket_rows"]


@dataclass(frozen=True, slots=True)
class BucketLimits:
    """What a bucket may cost, in keys: one key is one token's K and V."""

    max_keys: int
    """Most keys in a bucket of several rows, so that what is gathered is still in the cache when it is read."""
    max_padding: int
    """Most padding in a bucket: as much as can be copied in the time that one more bucket takes to launch."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Consecutive entries of the order that `bucket_rows` returned."""

    start: int
    stop: int
    width: int
    """Keys of its longest row."""
    is_even: bool
    """Whether all rows have `width` keys."""


def bucket_rows(lengths: NDArray[np.int64], limits: BucketLimits) -> tuple[NDArray[np.int64], list[Bucket]]:
    """Sort rows by falling length and cut where padding would cost more than a further bucket.

    Args:
        lengths: [num_rows], keys of each row. Not changed.

    Returns:
        The rows' order, int64 [num_rows] (equal lengths keep theirs), and the buckets, which cover it.
    """
    order = np.argsort(-lengths, kind="stable")
    ordered: list[int] = lengths[order].tolist()
    buckets: list[Bucket] = []
    start = padding = 0
    for stop in range(1, len(ordered) + 1):
        if stop < len(ordered):
            padding += ordered[start] - ordered[stop]
            fits = padding <= limits.max_padding and (stop + 1 - start) * ordered[start] <= limits.max_keys
            if fits:
                continue
        width = ordered[start]
        buckets.append(Bucket(start, stop, width, is_even=ordered[stop - 1] == width))
        start, padding = stop, 0
    return order, buckets
