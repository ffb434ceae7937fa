"""`ReuseHazard`: how soon blocks of a kind are used again, learned as they are, and what that makes them worth.

Knows classes, ages and weights; neither blocks nor chains.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

__all__ = ["NUM_CLASSES", "ReuseHazard", "age_bin", "age_bins", "reuse_class"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_USES, _LENGTHS = 24, 12
_SHAPE = (_USES, 2, 2, _LENGTHS)
NUM_CLASSES = _USES * 2 * 2 * _LENGTHS

# Ages in requests, in half octaves: 1, 2, 4, 5, 8, 11, 16, 22, 32, ...; a bin reaches up to the next edge.
_EDGES: Integers = np.unique(np.floor(2.0 ** (np.arange(64) / 2)).astype(np.int64))
_WIDTHS: Floats = np.diff(_EDGES, append=2 * _EDGES[-1]).astype(np.float64)
_NUM_BINS = len(_EDGES)
_EDGE_LIST: list[int] = _EDGES.tolist()

# Before anything is seen: the longer ago the last use, the less likely the next one. What is assumed of a class weighs
# as much as two reuses that were seen, and what a coarser class tells of a finer one as much as eight.
_PRIOR: Floats = 0.5 / (_EDGES.astype(np.float64) + 10.0)
_PRIOR_WEIGHT = 2.0
_PARENT_WEIGHT = 8.0


def reuse_class(uses: int, ends: bool, continues: bool, length: int) -> int:
    """The class of a block whose user left.

    Args:
        uses: requests that used its content so far, 1 or more.
        ends: whether it was the last block of the last of these.
        continues: whether that request began with blocks that were known.
        length: blocks of that request.
    """
    used = min(uses if uses <= 4 else 2 + uses.bit_length(), _USES - 1)
    long = min((max(length, 1).bit_length() - 1) // 2, _LENGTHS - 1)
    return ((used * 2 + ends) * 2 + continues) * _LENGTHS + long


def age_bins(ages: Integers) -> Integers:
    """The bin of each age; ages from 1, in requests."""
    return np.searchsorted(_EDGES, ages, side="right").astype(np.int64) - 1


def age_bin(age: int) -> int:
    """The bin of one age."""
    return bisect_right(_EDGE_LIST, age) - 1


class ReuseHazard:
    """Rates of reuse by class and age, and the worth that follows from them.

    A spell is the time from one use of a content to the next; its content may have been evicted meanwhile. The rate of
    a class at an age is reuses over exposure, the requests that its spells were at that age: the actuarial estimate of
    a hazard from censored lives (Kaplan and Meier, "Nonparametric estimation from incomplete observations", JASA 53,
    1958, section 2). A class of few spells is drawn towards the coarser one that it is part of, as by a gamma prior
    with that rate for its mean: first by uses alone, then by what ends or continues a sequence, then by length.

    The worth of a block is the most hits per request of staying that it can give from now on, over all times at which
    one may give up on it: its Gittins index (Gittins, "Bandit processes and dynamic allocation indices", JRSS B 41,
    1979, section 2). For caches that is the hit density of Beckmann, Chen and Cidon, "LHD: improving cache hit rate
    by maximizing hit density", NSDI 2018, with the best horizon in place of the longest.
    """

    __slots__ = ("_ended", "_num_bins", "_reused")

    def __init__(self) -> None:
        self._ended: Floats = np.zeros((NUM_CLASSES, _NUM_BINS))
        self._reused: Floats = np.zeros((NUM_CLASSES, _NUM_BINS))
        self._num_bins = 1  # up to one above the highest age so far

    def end(self, kind: int, age: int, weight: float, *, reused: bool) -> None:
        """Spells of a class ended at an age.

        Args:
            kind: their class.
            age: in requests, from 1.
            weight: how much they count in all.
            reused: whether by a use, or because nobody looks any more.
        """
        column = age_bin(age)
        self._num_bins = max(self._num_bins, min(column + 2, _NUM_BINS))
        self._ended[kind, column] += weight
        if reused:
            self._reused[kind, column] += weight

    def fade(self, factor: float) -> None:
        """Let all that was seen so far count `factor` of what it counted."""
        self._ended *= factor
        self._reused *= factor

    def worths(self, kinds: Integers, ages: Integers, weights: Floats, wanted: Integers) -> Floats:
        """What blocks are worth.

        Args:
            kinds: the class of each group of spells that goes on.
            ages: its age.
            weights: how much it counts.
            wanted: the classes that are asked for.

        Returns:
            Hits per request of staying. [wanted classes, age bins], up to one bin above the highest age.
        """
        if len(ages):
            self._num_bins = max(self._num_bins, min(age_bin(int(ages.max())) + 2, _NUM_BINS))
        rates = self._rates(kinds, ages, weights, wanted, self._num_bins)
        return _best_density(rates, _WIDTHS[: self._num_bins])

    def _rates(self, kinds: Integers, ages: Integers, weights: Floats, wanted: Integers, num_bins: int) -> Floats:
        """Reuses per request. [wanted classes, num_bins]"""
        bins = age_bins(ages)
        flat = np.bincount(kinds * _NUM_BINS + bins, weights, minlength=NUM_CLASSES * _NUM_BINS)
        ended = (self._ended + flat.reshape(NUM_CLASSES, _NUM_BINS)).reshape(*_SHAPE, _NUM_BINS)[..., :num_bins]
        reused = self._reused.reshape(*_SHAPE, _NUM_BINS)[..., :num_bins]
        used, ends, continues, long = np.unravel_index(wanted, _SHAPE)
        # Coarse to fine: [classes of the level, num_bins]
        rates = _PRIOR[:num_bins][None]
        prior_weight = _PRIOR_WEIGHT
        for place, index in (((1, 2, 3), used), ((3,), (used, ends, continues)), ((), (used, ends, continues, long))):
            seen = reused.sum(axis=place)[index] if place else reused[index]
            exposure = _exposure(ended.sum(axis=place)[index] if place else ended[index], num_bins)
            rates = (seen + prior_weight) / (exposure + prior_weight / rates)
            prior_weight = _PARENT_WEIGHT
        return rates


def _exposure(ended: Floats, num_bins: int) -> Floats:
    """Requests that spells were in each bin: all of it if they ended later, half if they ended there.

    The first bin is a single request, so that is whole either way.

    Args:
        ended: weight of spells that ended, or are, in each bin. [classes, num_bins]
        num_bins: of the bins, those that count.
    """
    later = np.cumsum(ended[:, ::-1], axis=1)[:, ::-1] - ended
    part = np.full(num_bins, 0.5)
    part[0] = 1.0
    return (later + ended * part) * _WIDTHS[:num_bins]


def _best_density(rates: Floats, widths: Floats) -> Floats:
    """For each age, the largest ratio of hits to time until a later age. [classes, bins] as `rates`."""
    hazard = rates * widths
    passed = np.cumsum(hazard, axis=1)
    before = passed - hazard
    # Chance to be unused still at the start of bin j, if it is at the start of bin i: [classes, i, j]
    alive = np.exp(-np.maximum(before[:, None, :] - before[:, :, None], 0.0))
    hits = -np.expm1(-hazard)
    gained = np.triu(alive * hits[:, None, :])
    spent = np.triu(alive * (hits / rates)[:, None, :])
    density = np.cumsum(gained, axis=2) / np.maximum(np.cumsum(spent, axis=2), 1e-300)
    best: Floats = density.max(axis=2)
    return best
