"""`BlockNeeds`: how many blocks a request takes, over all groups of layers, and how many it still needs.

A request's blocks are columns: column c holds its tokens ``c * block_size`` to ``(c + 1) * block_size - 1``,
one block in each group. A group with a window gives up its block of a column once no query to come sees it:

    computed tokens c, window w                       the next query is at position c, it sees from c - w + 1
    passed columns     max(0, c - w + 1) // block_size
    columns it holds   at most the span of w - 1 tokens seen before, and the chunk that is computed next

Knows no request and no block id: numbers only, so that scheduler and sizing of the cache agree.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["BlockNeeds"]

_UNBOUNDED = 2**62


class BlockNeeds:
    """Counts of blocks for groups with certain windows, when chunks have a largest size."""

    def __init__(self, block_size: int, windows: Sequence[int | None], max_chunk: int) -> None:
        """Args:
        block_size: tokens a block holds.
        windows: of each group; None for one that keeps everything.
        max_chunk: most tokens of one request in a step.
        """
        self._block_size = block_size
        self._windows = tuple(windows)
        # Tokens that lie anyhow in blocks touch one block more than they fill.
        self._spans = tuple(
            _UNBOUNDED if window is None else (window + max_chunk + block_size - 3) // block_size + 1
            for window in windows
        )

    @property
    def num_groups(self) -> int:
        """Blocks of one column."""
        return len(self._windows)

    def num_columns(self, num_tokens: int) -> int:
        """Columns that hold so many tokens."""
        return -(-num_tokens // self._block_size)

    def passed(self, group: int, num_computed: int) -> int:
        """Leading columns of `group` that no query sees once `num_computed` tokens are computed."""
        window = self._windows[group]
        return 0 if window is None else max(0, num_computed - window + 1) // self._block_size

    def most_blocks(self, num_tokens: int) -> int:
        """The most blocks that a request holds at a time while its first `num_tokens` tokens are computed.

        With so many blocks, a request alone is never stuck: in each plan a group first gives up the columns that
        it has passed. What it then holds and gets for the next chunk are the columns from
        ``max(0, c - w + 1) // block_size`` to that of token ``c + chunk - 1``. They hold at most ``w - 1 + chunk``
        tokens' span, and are never more than all columns; each group stays under its share of this sum.
        """
        columns = self.num_columns(num_tokens)
        return sum(min(columns, span) for span in self._spans)

    def most_tokens(self, num_blocks: int, limit: int) -> int:
        """The longest request, up to `limit` tokens, whose `most_blocks` are no more than `num_blocks`."""
        return bisect.bisect_right(range(1, limit + 1), num_blocks, key=self.most_blocks)

    def to_admit(self, num_tokens: int, num_hit: int, num_unused: Sequence[int]) -> int:
        """Blocks that must be available for a request to compute all of its tokens.

        Args:
            num_tokens: its tokens.
            num_hit: leading columns that are cached.
            num_unused: by group, how many of the blocks that the hit takes nobody uses now.

        A block of the hit that others use takes nothing from what is available; but once it is behind the window it
        gives nothing back either, so a window's further columns count up to a whole span. In no case is it more
        than what the request holds by itself: `most_blocks` stays the most that is ever asked.
        """
        columns = self.num_columns(num_tokens)
        num_hit_tokens = num_hit * self._block_size
        total = 0
        for group, span in enumerate(self._spans):
            held = min(columns - self.passed(group, num_hit_tokens), span)
            total += min(held, min(columns - num_hit, span) + num_unused[group])
        return total

    def to_catch_up(self, num_tokens: int, num_computed: int, num_columns: int) -> int:
        """Blocks that a running request still needs for the tokens that it has.

        Args:
            num_tokens: its tokens.
            num_computed: those that are computed.
            num_columns: columns that it has.
        """
        missing = self.num_columns(num_tokens) - num_columns
        if missing <= 0:
            return 0
        return sum(
            min(missing, max(0, span - num_columns + self.passed(group, num_computed)))
            for group, span in enumerate(self._spans)
        )

    def to_catch_up_all(
        self, num_tokens: NDArray[np.int64], num_computed: NDArray[np.int64], capacity: NDArray[np.int64]
    ) -> int:
        """The same, summed over requests, with their capacity in tokens instead of columns."""
        short = np.flatnonzero(num_tokens > capacity)
        if not short.size:
            return 0
        num_tokens, num_computed, capacity = num_tokens[short], num_computed[short], capacity[short]
        size = self._block_size
        missing = -(-(num_tokens - capacity) // size)
        total = 0
        for window, span in zip(self._windows, self._spans, strict=True):
            if window is None:
                total += int(missing.sum())
                continue
            held = capacity // size - np.maximum(0, num_computed - window + 1) // size
            total += int(np.minimum(missing, np.maximum(0, span - held)).sum())
        return total
