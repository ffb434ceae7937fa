"""What a model's weights and cache take of a device's memory."""

from __future__ import annotations

import torch

from vcore.config import CacheConfig
from vcore.engine.model_check.report import MemoryNeeds
from vcore.engine.outline import ModelOutline
from vcore.errors import CapacityError
from vcore.kv_cache.needs import BlockNeeds
from vcore.runner.memory import available_host_bytes
from vcore.runner.settings import CPU_CACHE_BYTES_LIMIT

__all__ = ["memory_needs"]


def memory_needs(
    outline: ModelOutline,
    config: CacheConfig,
    device: torch.device,
    *,
    block_size: int,
    max_model_len: int,
    max_chunk: int,
) -> MemoryNeeds | None:
    """What one rank needs, and what there is.

    Args:
        outline: of the rank's model.
        config: `memory_fraction`, and `num_blocks` if that is asked for.
        device: where it is to run.
        block_size: tokens a block holds.
        max_model_len: most tokens of a request.
        max_chunk: most tokens of one request in a step.

    Returns:
        None for a device whose memory cannot be asked for.

    Raises:
        CapacityError: the weights do not fit, or leave no room for a cache.
    """
    usable = _usable_bytes(device, config.memory_fraction)
    if usable is None:
        return None
    if outline.weight_bytes > usable:
        raise CapacityError(
            f"the weights take {outline.weight_bytes:,} bytes, and {device} has {usable:,} for them. Use a smaller "
            "model or dtype, or a device with more memory."
        )
    layout = outline.layout(block_size)
    needs = BlockNeeds(block_size, layout.windows, max_chunk)
    num_blocks, cache_bytes = _blocks(outline, config, device, usable, layout.bytes_per_block)
    least = 1 + len(layout.groups)
    if layout.bytes_per_block and num_blocks < least:
        raise CapacityError(
            f"the KV cache needs at least {least} blocks of {layout.bytes_per_block:,} bytes, and {cache_bytes:,} "
            f"bytes of {device} are for it beside the weights. Raise cache.memory_fraction or cache.num_blocks, free "
            "memory, or use a smaller model or dtype."
        )
    per_request = needs.most_blocks(max_model_len)
    return MemoryNeeds(
        device_bytes=usable,
        cache_bytes=cache_bytes,
        max_cached_tokens=max(0, num_blocks - 1) // needs.num_groups * block_size,
        request_bytes=per_request * layout.bytes_per_block,
        num_requests=max(0, num_blocks - 1) // per_request,
    )


def _usable_bytes(device: torch.device, fraction: float) -> int | None:
    if device.type == "cpu":
        return available_host_bytes()
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return max(0, int(total * fraction) - (total - free))
    return None


def _blocks(
    outline: ModelOutline, config: CacheConfig, device: torch.device, usable: int, bytes_per_block: int
) -> tuple[int, int]:
    """How many blocks there will be, and the bytes for them."""
    if config.num_blocks != "auto":
        return config.num_blocks, config.num_blocks * bytes_per_block
    left = usable - outline.weight_bytes
    if device.type == "cpu":
        left = min(int(left * config.memory_fraction), CPU_CACHE_BYTES_LIMIT)
    return left // bytes_per_block if bytes_per_block else 0, left
