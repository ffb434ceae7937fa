"""`WorthOrder`: the order in which unused blocks go: those of the cohort that is worth or used least, leaves only.

A cohort is a stretch of a chain, so of its blocks only the last that is left can be a leaf:

    cohorts    A: a0 a1 a2 -- B: b0 b1            b1, b0 go first, or c0, as B or C is worth less;
                         \\-- C: c0               only then A has a leaf
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vcore.interfaces.eviction import BlockView
from vcore_policies.eviction.cohorts import NO_COHORT, Cohorts
from vcore_policies.eviction.reuse_hazard import NUM_CLASSES, ReuseHazard, age_bin, age_bins

__all__ = ["WorthOrder"]

_Entry = tuple[float, int, int]  # worth or uses, time of the last use, cohort


class WorthOrder:
    """Cohorts with a leaf in a heap, by worths that are computed now and then, or by uses."""

    __slots__ = (
        "_cohorts",
        "_hazard",
        "_heap",
        "_in_heap",
        "_newcomers",
        "_rows",
        "_seen",
        "_view",
        "_worths",
        "by_uses",
    )

    def __init__(self, view: BlockView, cohorts: Cohorts, hazard: ReuseHazard) -> None:
        self._view = view
        self._cohorts = cohorts
        self._hazard = hazard
        self._heap: list[_Entry] = []  # also of cohorts that are gone, until they surface
        self._in_heap: set[int] = set()
        self._newcomers: list[int] = []  # cohorts that are not ranked yet
        self._seen: set[int] = set()  # kinds that there ever were, all in `_worths`
        self._rows: NDArray[np.int64] = np.zeros(NUM_CLASSES, np.int64)  # of each kind in `_worths`
        self._worths: NDArray[np.float64] = np.zeros((0, 1))
        self.by_uses = False
        """Whether cohorts go by uses, from the next time that worths are computed."""

    @property
    def has_new_kinds(self) -> bool:
        """Whether there are cohorts of a kind whose worth is not computed."""
        kinds, sizes = self._cohorts.kinds, self._cohorts.sizes
        return any(int(kinds[cohort]) not in self._seen for cohort in self._newcomers if sizes[cohort])

    def add(self, cohort: int) -> None:
        """Take a new cohort in, whose blocks are unused."""
        self._newcomers.append(cohort)

    def discard(self, cohort: int) -> None:
        """Leave out a cohort that is gone. Another may have its id from now on."""
        self._in_heap.discard(cohort)

    def evict(self, block_ids: Sequence[int]) -> None:
        """Leave blocks out that are no longer cached; what they followed may be a leaf now."""
        of_block, blocks_of, parent_of = self._cohorts.of_block, self._cohorts.blocks, self._view.parent
        for block_id in block_ids:
            cohort = of_block[block_id]
            of_block[block_id] = NO_COHORT
            blocks = blocks_of[cohort] if cohort != NO_COHORT else []
            if blocks and blocks[-1] == block_id:
                blocks.pop()
            if blocks and of_block[blocks[-1]] == cohort:
                above = cohort
            else:
                parent = parent_of(block_id)
                above = NO_COHORT if parent is None else of_block[parent]
            if above != NO_COHORT and above not in self._in_heap:
                self._newcomers.append(above)

    def compute_worths(self, now: int) -> None:
        """Rank all cohorts by what was learned until now, a time in requests."""
        cohorts = self._cohorts
        alive = np.flatnonzero(cohorts.sizes)
        kinds = cohorts.kinds[alive]
        self._seen.update(kinds.tolist())
        wanted = np.fromiter(sorted(self._seen), np.int64, len(self._seen))
        weights = cohorts.weights[alive] * cohorts.sizes[alive]
        self._worths = self._hazard.worths(kinds, np.maximum(now - 1 - cohorts.since[alive], 1), weights, wanted)
        self._rows[wanted] = np.arange(len(wanted))
        ranked = np.fromiter(self._in_heap, np.int64, len(self._in_heap))
        since = cohorts.since[ranked]
        bins = np.minimum(age_bins(now - since), self._worths.shape[1] - 1)
        worths = self._worths[self._rows[cohorts.kinds[ranked]], bins].tolist()
        keys = [cohorts.uses[cohort] for cohort in ranked.tolist()] if self.by_uses else worths
        self._heap = list(zip(keys, since.tolist(), ranked.tolist(), strict=True))
        heapq.heapify(self._heap)

    def worth(self, kind: int, since: int, now: int) -> float:
        """Of a content of a kind that was last used then; 0 if nothing is known of the kind."""
        if kind not in self._seen:
            return 0.0
        column = min(age_bin(now - since), self._worths.shape[1] - 1)
        return float(self._worths[self._rows[kind], column])

    def pick(self, count: int, now: int) -> list[int]:
        """The first `count` blocks to go, if each goes before the next one is chosen. Takes none out."""
        self._rank_newcomers(now)
        cohorts, heap = self._cohorts, self._heap
        victims: list[int] = []
        left: dict[int, int] = {}  # children that a block has when the victims are gone
        ends: dict[int, int] = {}  # by cohort, how many of its blocks have not been looked at
        passed: list[_Entry] = []
        exposed: list[_Entry] = []
        while len(victims) < count and (heap or exposed):
            if exposed and not (heap and heap[0] < exposed[0]):
                entry = heapq.heappop(exposed)
            else:
                entry = heapq.heappop(heap)
                if not self._is_open(entry):
                    continue
                passed.append(entry)
            cohort = entry[2]
            ends.setdefault(cohort, len(cohorts.blocks[cohort]))
            for above in self._take(cohort, ends, victims, left, count):
                heapq.heappush(exposed, self._entry(above, now))
        for entry in passed:
            heapq.heappush(heap, entry)
        return victims if len(victims) == count else victims + self._others(victims, count)

    def _take(
        self, cohort: int, ends: dict[int, int], victims: list[int], left: dict[int, int], count: int
    ) -> list[int]:
        """Add the cohort's blocks to the victims, from its end to the first that is no leaf.

        Returns:
            Cohorts that have a leaf by that.
        """
        blocks, of_block = self._cohorts.blocks[cohort], self._cohorts.of_block
        parent_of, num_children = self._view.parent, self._view.num_children
        exposed: list[int] = []
        end = ends[cohort]
        while end and len(victims) < count:
            block_id = blocks[end - 1]
            if of_block[block_id] == cohort:
                if left[block_id] if block_id in left else num_children(block_id):
                    break
                victims.append(block_id)
                parent = parent_of(block_id)
                if parent is not None:
                    left[parent] = remaining = (left[parent] if parent in left else num_children(parent)) - 1
                    above = of_block[parent]
                    if not remaining and above != cohort and above != NO_COHORT:
                        exposed.append(above)
            end -= 1
        ends[cohort] = end
        return exposed

    def _is_open(self, entry: _Entry) -> bool:
        """Whether an entry of the heap stands for a cohort with a leaf; if not, it is left out."""
        cohort = entry[2]
        cohorts = self._cohorts
        if cohort not in self._in_heap or cohorts.since[cohort] != entry[1]:
            return False  # of a cohort that is gone, whose id another may have
        blocks, of_block = cohorts.blocks[cohort], cohorts.of_block
        while blocks and of_block[blocks[-1]] != cohort:
            blocks.pop()
        if blocks and not self._view.num_children(blocks[-1]):
            return True
        self._in_heap.discard(cohort)
        return False

    def _rank_newcomers(self, now: int) -> None:
        for cohort in self._newcomers:
            if self._cohorts.sizes[cohort] and cohort not in self._in_heap:
                self._in_heap.add(cohort)
                heapq.heappush(self._heap, self._entry(cohort, now))
        self._newcomers.clear()

    def _entry(self, cohort: int, now: int) -> _Entry:
        cohorts = self._cohorts
        since = int(cohorts.since[cohort])
        key = cohorts.uses[cohort] if self.by_uses else self.worth(int(cohorts.kinds[cohort]), since, now)
        return key, since, cohort

    def _others(self, victims: Sequence[int], count: int) -> list[int]:
        """Unused blocks that are no leaves because a block in use follows them, as the twin of a block can be."""
        chosen = set(victims)
        unused = (block_id for block_id, cohort in enumerate(self._cohorts.of_block) if cohort != NO_COHORT)
        return [block_id for block_id in unused if block_id not in chosen][: count - len(victims)]
