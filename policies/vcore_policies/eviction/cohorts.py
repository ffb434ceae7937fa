"""`Cohorts`: contents whose last use was the same, and so have one age and one kind; cached or not.

Blocks are many and requests few: what is the same for all blocks of a request's stretch is kept once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["NO_COHORT", "Cohorts"]

NO_COHORT = -1


class Cohorts:
    """Stretches of chains that a request left behind. Ids are small and are handed out again when empty."""

    __slots__ = ("_free", "blocks", "kinds", "of_block", "since", "sizes", "uses", "weights")

    def __init__(self, num_blocks: int) -> None:
        self.of_block = [NO_COHORT] * num_blocks
        """The cohort of each cached block that nobody uses."""
        self.kinds: NDArray[np.int64] = np.zeros(64, np.int64)
        """The class of each cohort's contents, as `reuse_class` has it."""
        self.since: NDArray[np.int64] = np.zeros(64, np.int64)
        """When they were last used, in requests."""
        self.weights: NDArray[np.float64] = np.zeros(64)
        """How much one of them counts."""
        self.sizes: NDArray[np.int64] = np.zeros(64, np.int64)
        """Contents that nobody has used since, evicted ones that are remembered among them; 0: there is no such
        cohort."""
        self.uses: list[int] = [0] * 64
        """Requests that used them."""
        self.blocks: list[list[int]] = [[] for _ in range(64)]
        """Blocks that were theirs, the head of the chain first; some may have left."""
        self._free = list(range(63, -1, -1))

    def add(self, kind: int, since: int, uses: int, blocks: list[int]) -> int:
        """A new cohort of these blocks, the head of the chain first.

        Blocks that were left behind together are used again together, too, mostly: n of them tell more than one, but
        not n times as much. So they count as the square root of n.
        """
        if not self._free:
            self._grow()
        cohort = self._free.pop()
        self.kinds[cohort] = kind
        self.since[cohort] = since
        self.weights[cohort] = len(blocks) ** -0.5
        self.sizes[cohort] = len(blocks)
        self.uses[cohort] = uses
        self.blocks[cohort] = blocks
        for block_id in blocks:
            self.of_block[block_id] = cohort
        return cohort

    def shrink(self, cohort: int, count: int) -> bool:
        """So many of its contents are used again, or forgotten.

        Returns:
            Whether the cohort is gone.
        """
        self.sizes[cohort] -= count
        if self.sizes[cohort]:
            return False
        self.blocks[cohort] = []
        self._free.append(cohort)
        return True

    def _grow(self) -> None:
        old = len(self.uses)
        for name in ("kinds", "since", "weights", "sizes"):
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros_like(array)]))
        self.uses += [0] * old
        self.blocks += [[] for _ in range(old)]
        self._free += range(2 * old - 1, old - 1, -1)
