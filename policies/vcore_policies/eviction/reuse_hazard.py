"""`ReuseHazard`: how soon blocks of a kind are used again, learned as they are, and what that makes them worth.

Knows classes, ages and weights; neither blocks nor chains.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

__all__ = ["NUM_CLASSES", "ReuseHazard", "age_bin", "age_bins", "gap_class", "reuse_class"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_GAPS, _USES, _LENGTHS = 15, 24, 12
NUM_CLASSES = _GAPS * 2 * 2 * _USES * _LENGTHS

# A class's number divided by these is the number of the coarser class that it is part of: by the last gap; by what ends
# or continues a sequence, too; by uses, too; by length, too.
_LEVELS = (4 * _USES * _LENGTHS, _USES * _LENGTHS, _LENGTHS, 1)

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


def gap_class(gap: int) -> int:
    """Of the requests from the last use but one to the last: 0 if there was one use only, else by powers of 2."""
    return min(gap.bit_length(), _GAPS - 1)


def reuse_class(uses: int, gap: int, ends: bool, continues: bool, length: int) -> int:
    """The class of a block whose user left.

    Args:
        uses: requests that used its content so far, 1 or more.
        gap: `gap_class` of the time between the last two of these.
        ends: whether it was the last block of the last of these.
        continues: whether that request began with blocks that were known.
        length: blocks of that request.
    """
    used = min(uses if uses <= 4 else 2 + uses.bit_length(), _USES - 1)
    long = min((max(length, 1).bit_length() - 1) // 2, _LENGTHS - 1)
    return (((gap * 2 + ends) * 2 + continues) * _USES + used) * _LENGTHS + long


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
    with that rate for its mean: first what was used again and what was not, then by how soon it was used again the last
    time, which says most of the next (O'Neil, O'Neil and Weikum, "The LRU-K page replacement algorithm", SIGMOD 1993,
    section 2), then by what ends or continues a sequence, by uses, and by length.

    The worth of a block is the most hits per request of staying that it can give from now on, over all times at which
    one may give up on it: its Gittins index (Gittins, "Bandit processes and dynamic allocation indices", JRSS B 41,
    1979, section 2). For caches that is the hit density of Beckmann, Chen and Cidon, "LHD: improving cache hit rate
    by maximizing hit density", NSDI 2018, with the best horizon in place of the longest.
    """

    __slots__ = ("_ended", "_kinds", "_num_bins", "_reused", "_row_of")

    def __init__(self) -> None:
        # A row for each class that there ever was: few of all that are possible.
        self._kinds: list[int] = []
        self._row_of: Integers = np.full(NUM_CLASSES, -1, np.int64)
        self._ended: Floats = np.zeros((64, _NUM_BINS))
        self._reused: Floats = np.zeros((64, _NUM_BINS))
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
        row = self._row_of[kind]
        if row < 0:
            row = self._add(kind)
        self._ended[row, column] += weight
        if reused:
            self._reused[row, column] += weight

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
        for kind in np.union1d(kinds, wanted).tolist():
            if self._row_of[kind] < 0:
                self._add(kind)
        num_rows, rows = len(self._kinds), self._row_of[wanted]
        alive = np.bincount(self._row_of[kinds] * _NUM_BINS + age_bins(ages), weights, minlength=num_rows * _NUM_BINS)
        ended = (self._ended[:num_rows] + alive.reshape(num_rows, _NUM_BINS))[:, :num_bins]
        reused = self._reused[:num_rows, :num_bins]
        all_kinds = np.asarray(self._kinds, np.int64)
        # Coarse to fine: [wanted classes, num_bins]
        rates = np.broadcast_to(_PRIOR[:num_bins], (len(wanted), num_bins))
        prior_weight = _PRIOR_WEIGHT
        for groups in (np.minimum(all_kinds // _LEVELS[0], 1), *(all_kinds // size for size in _LEVELS)):
            seen, exposure = _sums(groups, reused), _exposure(_sums(groups, ended), num_bins)
            index = np.searchsorted(np.unique(groups), groups[rows])
            rates = (seen[index] + prior_weight) / (exposure[index] + prior_weight / rates)
            prior_weight = _PARENT_WEIGHT
        return rates

    def _add(self, kind: int) -> int:
        """A row for a class that was never seen."""
        row = len(self._kinds)
        if row == len(self._ended):
            self._ended = np.concatenate([self._ended, np.zeros_like(self._ended)])
            self._reused = np.concatenate([self._reused, np.zeros_like(self._reused)])
        self._kinds.append(kind)
        self._row_of[kind] = row
        return row


def _sums(groups: Integers, values: Floats) -> Floats:
    """The rows of `values` added up by their groups. [groups in ascending order, columns]"""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    return np.asarray(np.add.reduceat(values[order], starts, axis=0))


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
    """For each age, the largest ratio of hits to time until a later age. [classes, bins] as `rates`.

    From the highest age down: what can be had until a later age is what the bin gives, and, if nothing happens in it,
    what could be had from the next bin on.
    """
    rates = np.ascontiguousarray(rates.T)  # [bins, classes]
    hits = -np.expm1(-rates * widths[:, None])
    times = hits / rates
    num_bins = len(rates)
    gained, spent = hits.copy(), times.copy()  # until the end of each bin, from the one that is looked at
    best = np.empty_like(rates)
    for start in range(num_bins - 1, -1, -1):
        stays = 1.0 - hits[start]
        for sums, own in ((gained, hits[start]), (spent, times[start])):
            later = sums[start + 1 :]
            later *= stays
            later += own
        best[start] = (gained[start:] / np.maximum(spent[start:], 1e-300)).max(axis=0)
    return np.asarray(best.T)
