"""`SharedPrefix`: how many leading blocks the decoding requests of a step have in common.

It follows from block ids alone. They change in three ways: a request comes with the blocks of its prefix hit, goes with
all of them, or gets fresh blocks at its end, which nobody else has. So the count stays while the requests do, and each
request needs to be compared once, with one of them, the *leader*:

    leader   4 9 2 | 7 8 5
    row 3    4 9 2 | 6             3
    row 5    4 9 2 | 3 1           3       the least is what all share: 3

The leader's own blocks are in use while it runs, so none of them can turn up anew elsewhere. When it goes, another one
takes its place, and all are compared again. Groups of layers with a window are left out: they lose their first blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vcore.scheduler.request import Request

__all__ = ["SharedPrefix"]

_UNKNOWN = -1
_ALL = 2**62
"""What the leader has in common with itself: its blocks and those that it will get."""


class SharedPrefix:
    """Counts leading columns of blocks that are the same, in every group without a window, for all requests given."""

    __slots__ = ("_count", "_groups", "_leader", "_leader_blocks", "_num_common", "_rows")

    def __init__(self, max_rows: int, groups: Sequence[int]) -> None:
        """Args:
        max_rows: rows there are.
        groups: the groups of layers without a window.
        """
        self._groups = tuple(groups)
        self._num_common = np.full(max_rows, _UNKNOWN, dtype=np.int64)
        """By row: leading columns that its request has in common with the leader."""
        self._leader: Request | None = None
        self._leader_blocks: list[list[int]] = []
        """By group in `groups`, the leader's live list of blocks. It gets another one when it loses its blocks."""
        self._rows: NDArray[np.int64] | None = None
        self._count = 0

    def forget(self, row: int) -> None:
        """Another request takes the row."""
        self._num_common[row] = _UNKNOWN

    def count(self, requests: Sequence[Request], rows: NDArray[np.int64]) -> int:
        """How many columns `requests` have in common; 0 for fewer than two.

        Args:
            requests: those that decode in a step, all of which run.
            rows: int64 [len(requests)], their rows. An array that was given before must not have changed since, nor
                its requests.
        """
        if rows is self._rows:
            return self._count
        self._rows, self._count = rows, 0
        if rows.size > 1 and self._groups:
            self._follow(requests, rows)
            common = self._num_common[rows]
            unknown = np.flatnonzero(common == _UNKNOWN)
            if unknown.size:
                for index in unknown.tolist():
                    common[index] = self._compare(requests[index])
                self._num_common[rows] = common
            self._count = int(common.min())
        return self._count

    def _follow(self, requests: Sequence[Request], rows: NDArray[np.int64]) -> None:
        """Keep the leader if it is among `requests`; else the one that came last leads, as it may stay the longest."""
        leader = self._leader
        if leader is not None and self._keeps_blocks(leader) and np.count_nonzero(rows == leader.row):
            return
        self._leader = leader = requests[-1]
        self._leader_blocks = self._blocks_of(leader)
        self._num_common.fill(_UNKNOWN)

    def _keeps_blocks(self, leader: Request) -> bool:
        """Whether the leader has held its blocks without a break: not so once it was preempted, or ended."""
        return leader.blocks.block_ids[self._groups[0]] is self._leader_blocks[0]

    def _blocks_of(self, request: Request) -> list[list[int]]:
        return [request.blocks.block_ids[group] for group in self._groups]

    def _compare(self, request: Request) -> int:
        if request is self._leader:
            return _ALL
        pairs = zip(self._leader_blocks, self._blocks_of(request), strict=True)
        return min(_num_common(leaders, own) for leaders, own in pairs)


def _num_common(first: list[int], second: list[int]) -> int:
    """How many leading elements are equal."""
    most = min(len(first), len(second))
    if not most or first[0] != second[0]:
        return 0
    low, step = 1, 1
    # Doubling, then halving, compares slices, which is much quicker than element by element.
    while low + step <= most and first[low : low + step] == second[low : low + step]:
        low, step = low + step, 2 * step
    high = min(most, low + step)  # a difference, or the end, is at or before it
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
