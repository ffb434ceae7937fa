"""`PrefixFinder`: the longest beginning of a request that every group of layers has in the cache.

A hit of n columns serves a group without a window if all n blocks are there, and a group with a window w if
those are there that the first token after the hit sees:

    columns        0 1 2 3 4 5 6 7
    full           x x x x x x x .        at most 7
    window of 2    . . x x . x x x        at most 8, for 7 it needs 5 and 6 alone
    hit            0 0 0 0 0 x x          the window's blocks, the null block before them

Knows hashes and blocks; which of them are being filled in this step it is told.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from vcore.kv_cache.block_pool import BlockPool
from vcore.kv_cache.needs import BlockNeeds

__all__ = ["PrefixFinder", "PrefixMatch"]


@dataclass(frozen=True, slots=True)
class PrefixMatch:
    """How much of a request's beginning is cached."""

    num_columns: int
    """Leading full blocks of its tokens that need not be computed."""
    block_ids: list[list[int]]
    """By group, one block a column, head first; 0 for those behind the group's window."""
    num_unused: list[int]
    """By group, how many of them nobody uses now, so that taking them makes fewer blocks available."""
    next_is_filling: bool
    """Whether a longer hit is computed in the step that is planned now."""


class PrefixFinder:
    """Looks prefixes up in a pool. Changes nothing."""

    def __init__(self, pool: BlockPool, needs: BlockNeeds, windows: Sequence[int | None]) -> None:
        """Args:
        pool: knows the cached blocks.
        needs: knows which columns a window has passed.
        windows: of each group.
        """
        self._pool = pool
        self._needs = needs
        self._windowed = tuple(group for group, window in enumerate(windows) if window is not None)
        self._full = tuple(group for group, window in enumerate(windows) if window is None)

    def find(self, hashes: Sequence[bytes], limit: int, block_size: int, filling: Container[int]) -> PrefixMatch:
        """The longest hit that all groups can serve.

        Args:
            hashes: of the request's full blocks.
            limit: most columns of the hit.
            block_size: tokens a block holds.
            filling: blocks whose content is computed in the step that is planned now; empty if there are none.
        """
        chains = [self._chain(group, hashes, limit) for group in self._full]
        limit = min([limit, *map(len, chains)])
        reachable = self._fit_windows(hashes, limit, block_size, ())
        count = reachable
        if filling:
            for chain in chains:
                count = next((column for column in range(count) if chain[column] in filling), count)
            count = self._fit_windows(hashes, count, block_size, filling)
        tables = self._tables(chains, hashes, count, block_size)
        ref_counts = self._pool.ref_counts
        return PrefixMatch(
            count,
            tables,
            [sum(block_id != 0 and ref_counts[block_id] == 0 for block_id in table) for table in tables],
            count < reachable,
        )

    def count(self, hashes: Sequence[bytes], limit: int, block_size: int) -> int:
        """How many columns `find` would hit if nothing were being filled."""
        limit = min([limit, *(len(self._chain(group, hashes, limit)) for group in self._full)])
        return self._fit_windows(hashes, limit, block_size, ())

    def _chain(self, group: int, hashes: Sequence[bytes], limit: int) -> list[int]:
        """The cached blocks of `group` up to the first that is missing."""
        by_hash, chain = self._pool.by_hash[group], []
        for column in range(limit):
            block_id = by_hash.get(hashes[column])
            if block_id is None:
                break
            chain.append(block_id)
        return chain

    def _fit_windows(self, hashes: Sequence[bytes], limit: int, block_size: int, without: Container[int]) -> int:
        """The most columns up to `limit` for which every window finds what it sees.

        One window's limit may be what another cannot serve, so they are asked in turn until all agree.
        """
        agreed = 0  # windows that were content with `limit`, one after another
        while limit and agreed < len(self._windowed):
            for group in self._windowed:
                fitting = self._fit_window(group, hashes, limit, block_size, without)
                agreed = agreed + 1 if fitting == limit else 1
                limit = fitting
        return limit

    def _fit_window(
        self, group: int, hashes: Sequence[bytes], limit: int, block_size: int, without: Container[int]
    ) -> int:
        by_hash, passed = self._pool.by_hash[group], self._needs.passed
        column = limit
        first = passed(group, limit * block_size)
        while column > first:
            column -= 1
            block_id = by_hash.get(hashes[column])
            if block_id is None or block_id in without:
                limit = column
                first = passed(group, limit * block_size)
        return limit

    def _tables(self, chains: list[list[int]], hashes: Sequence[bytes], count: int, block_size: int) -> list[list[int]]:
        tables: list[list[int]] = [[]] * (len(self._full) + len(self._windowed))
        for group, chain in zip(self._full, chains, strict=True):
            tables[group] = chain[:count]
        for group in self._windowed:
            by_hash, first = self._pool.by_hash[group], self._needs.passed(group, count * block_size)
            tables[group] = [0] * first + [by_hash[block_hash] for block_hash in hashes[first:count]]
        return tables
