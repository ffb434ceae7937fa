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

__all__ = ["FilledBlock", "KVCacheManager", "PrefixMatch", "RequestBlocks"]


class FilledBlock(NamedTuple):
    """A block that became findable, with the hash that it is found by."""

    block_id: int
    block_hash: bytes


@dataclass(slots=True)
class RequestBlocks:
    """The blocks of one request."""

    chain: BlockHashChain
    priority: int
    block_ids: list[int] = field(default_factory=list)
    """In the order of its tokens."""
    num_published: int = 0
    """How many leading full blocks are findable, under these ids or as another block with the same content."""


@dataclass(frozen=True, slots=True)
class PrefixMatch:
    """How much of a request's beginning is cached."""

    block_ids: list[int]
    """The longest cached chain, head first."""
    num_unused: int
    """How many of them nobody uses now, so that taking them makes fewer blocks available."""
    next_is_filling: bool
    """Whether the block after them is computed in the step that is planned now."""


class KVCacheManager:
    """Finds cached prefixes, makes computed blocks findable, and gives blocks to requests and back."""

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        make_eviction: Callable[[EvictionContext], EvictionPolicy],
        *,
        eviction_name: str,
        prefix_caching: bool = True,
        strict: bool = False,
    ) -> None:
        """An empty cache.

        Args:
            num_blocks: blocks in all, the null block among them.
            block_size: tokens a block holds.
            make_eviction: builds the eviction policy.
            eviction_name: what it is called in the log.
            prefix_caching: whether blocks are ever found again.
            strict: whether a fault of the policy raises `vcore.errors.PolicyError`.
        """
        self.block_size = block_size
        self.prefix_caching = prefix_caching
        self.pool = BlockPool(num_blocks, block_size, make_eviction, eviction_name=eviction_name, strict=strict)
        self._filling: dict[int, bytes] = {}

    def open(self, extra_keys: Sequence[str], priority: int) -> RequestBlocks:
        """The record of a request that has no block yet."""
        return RequestBlocks(BlockHashChain(self.block_size, extra_keys), priority)

    def num_blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-num_tokens // self.block_size)

    def find_prefix(self, blocks: RequestBlocks, token_ids: Sequence[int]) -> PrefixMatch:
        """The longest cached beginning of `token_ids` that leaves at least one token to compute.

        Changes nothing but the chain's own hashes.
        """
        found: list[int] = []
        if not self.prefix_caching:
            return PrefixMatch(found, 0, False)
        pool, filling = self.pool, self._filling
        next_is_filling = False
        num_unused = 0
        hashes = blocks.chain.extend(token_ids)
        for index in range((len(token_ids) - 1) // self.block_size):
            block_id = pool.by_hash.get(hashes[index])
            if block_id is None:
                break
            if block_id in filling:
                next_is_filling = True
                break
            found.append(block_id)
            num_unused += pool.ref_counts[block_id] == 0
        return PrefixMatch(found, num_unused, next_is_filling)

    def admit(self, blocks: RequestBlocks, match: PrefixMatch, count: int) -> None:
        """Give a request without blocks its cached beginning and `count` blocks more.

        The caller has seen that ``count + match.num_unused`` blocks are available.
        """
        assert not blocks.block_ids
        pool = self.pool
        # Hits first: what is in use can not be evicted for the rest.
        pool.acquire(match.block_ids, blocks.priority)
        fresh = pool.allocate(count)
        assert fresh is not None
        blocks.block_ids = match.block_ids + fresh
        blocks.num_published = len(match.block_ids)

    def publish(self, blocks: RequestBlocks, token_ids: Sequence[int], num_computed: int) -> int:
        """Make the full blocks among the first `num_computed` tokens findable, as far as tokens are known.

        Args:
            blocks: of the request.
            token_ids: its known tokens.
            num_computed: tokens whose computation has been launched or is planned in this step.

        Returns:
            How many leading blocks are findable now.
        """
        size = self.block_size
        end = min(num_computed, len(token_ids)) // size
        start = blocks.num_published
        if start < end:
            chain, pool, block_ids = blocks.chain, self.pool, blocks.block_ids
            hashes = chain.hashes
            if len(hashes) < end:
                chain.extend(token_ids)
            for index in range(start, end):
                block_id, block_hash = block_ids[index], hashes[index]
                if pool.cache(block_id, block_hash, chain.parent(index), index, blocks.priority):
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
        return filled

    def settle(self, blocks: RequestBlocks) -> list[FilledBlock]:
        """What was published for one request since the last `end_step`; from now on it can be hit."""
        filling = self._filling
        return [FilledBlock(b, filling.pop(b)) for b in blocks.block_ids if b in filling]

    def withdraw(self, filled: Sequence[FilledBlock]) -> None:
        """Make blocks unfindable again, because the step that was to fill them failed."""
        hash_of = self.pool.hash_of
        self.pool.uncache([block.block_id for block in filled if hash_of(block.block_id) == block.block_hash])

    def retract(self, blocks: RequestBlocks) -> None:
        """Undo what was published for a request in the step that is planned now."""
        self.pool.uncache([block.block_id for block in self.settle(blocks)])

    def forget(self, blocks: RequestBlocks) -> None:
        """Make every block of a request unfindable, because its content is in doubt."""
        self.pool.uncache(blocks.block_ids)

    def release(self, blocks: RequestBlocks, *, finished: bool) -> None:
        """Take all blocks back; what is findable stays so until it is evicted."""
        block_ids = blocks.block_ids
        if finished and blocks.num_published:
            self.pool.mark_end(blocks.chain.hashes[blocks.num_published - 1])
        # The tail first: a prefix is useful without its continuation, never the other way round.
        self.pool.release(block_ids[::-1])
        blocks.block_ids = []
        blocks.num_published = 0

    def reset(self) -> None:
        """Forget every cached block. The caller sees to it that blocks in use are not published later."""
        self.pool.reset()
        self._filling.clear()
