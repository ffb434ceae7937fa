"""`choose_num_blocks`: how many blocks the cache gets, by the configuration or by the memory beside the model."""

from __future__ import annotations

import logging

from vcore.engine.resolve import Resolution
from vcore.errors import CapacityError, ConfigError
from vcore.interfaces.executor import Executor
from vcore.kv_cache.layout import CacheLayout
from vcore.kv_cache.needs import BlockNeeds
from vcore.scheduler.settings import largest_chunk

__all__ = ["choose_num_blocks"]

logger = logging.getLogger(__name__)


def choose_num_blocks(resolution: Resolution, executor: Executor, layout: CacheLayout) -> int:
    """The configured number of blocks, or as many as memory allows and requests could ever use.

    Args:
        resolution: of the engine.
        executor: loaded, so that it knows what memory is left.
        layout: of the cache.

    Raises:
        ConfigError: fewer are configured than the model's layers need.
        CapacityError: memory does not suffice for those.
    """
    least = 1 + len(layout.groups)  # the null block, and one a group of layers to use
    wanted = resolution.config.cache.num_blocks
    if wanted == "auto":
        return _affordable(resolution, executor, layout, least)
    if wanted < least:
        raise ConfigError(
            f"cache.num_blocks is {wanted}, but this model needs at least {least}: its layers form "
            f"{len(layout.groups)} groups, and each takes a block of its own. Raise cache.num_blocks."
        )
    return wanted


def _affordable(resolution: Resolution, executor: Executor, layout: CacheLayout, least: int) -> int:
    scheduler = resolution.config.scheduler
    max_chunk = largest_chunk(
        resolution.max_num_batched_tokens, scheduler.long_prefill_threshold, scheduler.chunked_prefill
    )
    needs = BlockNeeds(resolution.block_size, layout.windows, max_chunk)
    useful = _useful(resolution, needs)
    per_block = layout.bytes_per_block
    if per_block == 0:
        return useful
    available = executor.cache_bytes_available()
    num_blocks = available // per_block
    if num_blocks < least:
        raise CapacityError(
            f"the KV cache needs at least {least} blocks of {per_block:,} bytes, and {available:,} bytes "
            "are left for it beside the model. Raise cache.memory_fraction (now "
            f"{resolution.config.cache.memory_fraction}), free memory, or use a smaller model or dtype."
        )
    if num_blocks - 1 < needs.most_blocks(resolution.max_model_len):
        logger.warning(
            "the KV cache holds %d tokens, less than one request of max_model_len=%d; longer requests are refused",
            needs.most_tokens(num_blocks - 1, resolution.max_model_len),
            resolution.max_model_len,
        )
    return min(num_blocks, useful)


def _useful(resolution: Resolution, needs: BlockNeeds) -> int:
    """Blocks beyond which there is no more to be had, the null block among them."""
    if not resolution.config.cache.prefix_caching:
        return resolution.max_num_seqs * needs.most_blocks(resolution.max_model_len) + 1
    # What a window has passed is of use to others only as a cached prefix.
    return resolution.max_num_seqs * needs.num_columns(resolution.max_model_len) * needs.num_groups + 1
