"""`KVCacheManager`: prefix hits and the blocks of requests, on top of the block pool.

Owns which blocks are being filled in the step that is planned now. Knows tokens and hashes; knows
neither requests' states nor the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.kv_cache.block_hash import BlockHashChain
from vcore.kv_cache.block_pool import BlockPool
from vcore.kv_cache.needs import BlockNeeds
from vcore.kv_cache.prefix import PrefixFinder, PrefixMatch

__all__ = ["FilledBlock", "KVCacheManager", "RequestBlocks"]


class FilledBlock(NamedTuple):
    """A block that became findable, with the hash that it is found by."""

    block_id: int
    block_hash: bytes


@dataclass(slots=True)
class RequestBlocks:
    """The blocks of one request: columns of `block_size` tokens, in each of which every group has one."""

    chain: BlockHashChain
    priority: int
    block_ids: list[list[int]]
    """By group, in the order of its tokens; 0 for those that the group's window has passed."""
    ttl: float | None = None
    """Seconds after its last use for which it wants what it used kept."""
    num_passed: list[int] = field(init=False)
    """By group, how many leading ones that is."""
    num_published: int = 0
    """How many leading full columns are findable, under these ids or as other blocks with the same content."""

    def __post_init__(self) -> None:
        self.num_passed = [0] * len(self.block_ids)

    @property
    def num_columns(self) -> int:
        """Columns that it has, passed ones included."""
        return len(self.block_ids[0])

    def held(self) -> list[int]:
        """Every block that it uses, the tail first: a prefix is useful without its continuation, not the reverse."""
        if len(self.block_ids) == 1:
            return self.block_ids[0][self.num_passed[0] :][::-1]
        columns = zip(*self.block_ids, strict=True)
        return [block_id for column in list(columns)[::-1] for block_id in column if block_id]


class KVCacheManager:
    """Finds cached prefixes, makes computed blocks findable, and gives blocks to requests and back."""

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        make_eviction: Callable[[EvictionContext], EvictionPolicy],
        *,
        eviction_name: str,
        windows: Sequence[int | None] = (None,),
        max_chunk: int = 1,
        prefix_caching: bool = True,
        strict: bool = False,
    ) -> None:
        """An empty cache.

        Args:
            num_blocks: blocks in all, the null block among them.
            block_size: tokens a block holds.
            make_eviction: builds the eviction policy.
            eviction_name: what it is called in the log.
            windows: of each group of layers (`CacheLayout.windows`).
            max_chunk: most tokens of a request in a step; matters to windows alone.
            prefix_caching: whether blocks are ever found again.
            strict: whether a fault of the policy raises `vcore.errors.PolicyError`.
        """
        self.block_size = block_size
        self.prefix_caching = prefix_caching
        self.num_groups = len(windows)
        self.needs = BlockNeeds(block_size, windows, max_chunk)
        self.pool = BlockPool(
            num_blocks,
            block_size,
            make_eviction,
            eviction_name=eviction_name,
            num_groups=self.num_groups,
            strict=strict,
        )
        self.windows = tuple((group, window) for group, window in enumerate(windows) if window is not None)
        """The groups that have a window, and that."""
        self._finder = PrefixFinder(self.pool, self.needs, windows)
        self._filling: dict[int, bytes] = {}

    def open(self, extra_keys: Sequence[str], priority: int, ttl: float | None = None) -> RequestBlocks:
        """The record of a request that has no block yet."""
        chain = BlockHashChain(self.block_size, extra_keys)
        return RequestBlocks(chain, priority, [[] for _ in range(self.num_groups)], ttl=ttl)

    def no_match(self) -> PrefixMatch:
        """A hit of nothing."""
        return PrefixMatch(0, [[] for _ in range(self.num_groups)], [0] * self.num_groups, False)

    def find_prefix(self, blocks: RequestBlocks, token_ids: Sequence[int]) -> PrefixMatch:
        """The longest cached beginning of `token_ids` that leaves at least one token to compute.

        Changes nothing but the chain's own hashes.
        """
        if not self.prefix_caching:
            return self.no_match()
        hashes = blocks.chain.extend(token_ids)
        limit = (len(token_ids) - 1) // self.block_size
        return self._finder.find(hashes, limit, self.block_size, self._filling)

    def count_cached(self, blocks: RequestBlocks, token_ids: Sequence[int]) -> int:
        """Tokens of the longest cached beginning, as `find_prefix` has it but for blocks that are being filled."""
        if not self.prefix_caching:
            return 0
        hashes = blocks.chain.extend(token_ids)
        return self._finder.count(hashes, (len(token_ids) - 1) // self.block_size, self.block_size) * self.block_size

    def admit(self, blocks: RequestBlocks, match: PrefixMatch, num_columns: int) -> None:
        """Give a request without blocks its cached beginning and `num_columns` columns more.

        The caller has seen that so many blocks are available, beside those of the match that nobody uses.
        """
        assert not blocks.num_columns
        pool, num_groups = self.pool, self.num_groups
        for group, _ in self.windows:
            blocks.num_passed[group] = self.needs.passed(group, match.num_columns * self.block_size)
        # Hits first: what is in use can not be evicted for the rest.
        hits = zip(match.block_ids, blocks.num_passed, strict=True)
        used = [block_id for ids, passed in hits for block_id in ids[passed:]]
        pool.acquire(used, blocks.priority, blocks.ttl)
        fresh = pool.allocate(num_columns * num_groups)
        assert fresh is not None
        blocks.block_ids = [ids + fresh[group::num_groups] for group, ids in enumerate(match.block_ids)]
        blocks.num_published = match.num_columns

    def grow(self, blocks: RequestBlocks, fresh: list[int]) -> None:
        """Add columns.

        Args:
            blocks: of the request.
            fresh: blocks that were allocated for it, column after column, one a group in each.
        """
        if self.num_groups == 1:
            blocks.block_ids[0] += fresh
            return
        for group, block_ids in enumerate(blocks.block_ids):
            block_ids += fresh[group :: self.num_groups]

    def next_pass(self, blocks: RequestBlocks) -> int:
        """Computed tokens at which a window leaves the next block of the request behind. There must be a window."""
        passed, size = blocks.num_passed, self.block_size
        return min((passed[group] + 1) * size + window - 1 for group, window in self.windows)

    def take_passed(self, blocks: RequestBlocks, num_computed: int) -> list[tuple[int, int, int]]:
        """Null the entries of blocks that no query sees once `num_computed` tokens are computed.

        They are findable as before, and still in use: the caller releases them.

        Returns:
            Group, column and block of each, a group's head first.
        """
        taken: list[tuple[int, int, int]] = []
        for group, _ in self.windows:
            block_ids, start = blocks.block_ids[group], blocks.num_passed[group]
            end = self.needs.passed(group, num_computed)
            if end > start:
                taken += [(group, column, block_ids[column]) for column in range(start, end)]
                block_ids[start:end] = [0] * (end - start)
                blocks.num_passed[group] = end
        return taken

    def publish(self, blocks: RequestBlocks, token_ids: Sequence[int], num_computed: int) -> int:
        """Make the full blocks among the first `num_computed` tokens findable, as far as tokens are known.

        Args:
            blocks: of the request.
            token_ids: its known tokens.
            num_computed: tokens whose computation has been launched or is planned in this step.

        Returns:
            How many leading columns are findable now.
        """
        size = self.block_size
        end = min(num_computed, len(token_ids)) // size
        start = blocks.num_published
        if start < end:
            chain, pool = blocks.chain, self.pool
            hashes, priority, ttl = chain.hashes, blocks.priority, blocks.ttl
            if len(hashes) < end:
                chain.extend(token_ids)
            for group, block_ids in enumerate(blocks.block_ids):
                for column in range(start, end):
                    block_id, block_hash = block_ids[column], hashes[column]
                    if block_id and pool.cache(
                        block_id, block_hash, chain.parent(column), column, priority, group, ttl
                    ):
                        self._filling[block_id] = block_hash
            blocks.num_published = end
        return blocks.num_published

    def end_step(self) -> list[FilledBlock]:
        """What was published since the last call; from now on it can be hit."""
        self.pool.flush_inserts()
        if not self._filling:
            return []
        filled = [FilledBlock(*item) for item in self._filling.items()]
        self._filling.clear()
        self.pool.version += 1
        return filled

    def settle(self, blocks: RequestBlocks) -> list[FilledBlock]:
        """What was published for one request since the last `end_step`; from now on it can be hit."""
        filling = self._filling
        return [FilledBlock(b, filling.pop(b)) for ids in blocks.block_ids for b in ids if b in filling]

    def withdraw(self, filled: Sequence[FilledBlock]) -> None:
        """Make blocks unfindable again, because the step that was to fill them failed."""
        hash_of = self.pool.hash_of
        self.pool.uncache([block.block_id for block in filled if hash_of(block.block_id) == block.block_hash])

    def retract(self, blocks: RequestBlocks) -> None:
        """Undo what was published for a request in the step that is planned now."""
        self.pool.uncache([block.block_id for block in self.settle(blocks)])

    def forget(self, blocks: RequestBlocks) -> None:
        """Make every block of a request unfindable, because its content is in doubt; passed ones, too."""
        doubtful = blocks.held()
        for group, _ in self.windows:
            by_hash = self.pool.by_hash[group]
            passed = blocks.chain.hashes[: min(blocks.num_passed[group], blocks.num_published)]
            doubtful += [by_hash[block_hash] for block_hash in passed if block_hash in by_hash]
        self.pool.uncache(doubtful)

    def release(self, blocks: RequestBlocks, *, finished: bool) -> None:
        """Take all blocks back; what is findable stays so until it is evicted."""
        if finished and blocks.num_published:
            self.pool.mark_end(blocks.chain.hashes[blocks.num_published - 1])
        self.pool.release(blocks.held())
        blocks.block_ids = [[] for _ in range(self.num_groups)]
        blocks.num_passed = [0] * self.num_groups
        blocks.num_published = 0

    def reset(self) -> None:
        """Forget every cached block. The caller sees to it that blocks in use are not published later."""
        self.pool.reset()
        self._filling.clear()
