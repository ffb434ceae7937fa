"""How much memory there is for the KV cache, and allocating it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from vcore.errors import CapacityError
from vcore.kv_cache.layout import CacheLayout
from vcore.kv_cache.spec import KVCacheSpec

__all__ = ["allocate_caches", "available_host_bytes", "cuda_cache_bytes", "memory_taken_by"]

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_ALIGNMENT = 64


def available_host_bytes() -> int:
    """Bytes of the machine's memory that could be taken now without swapping, within the container's limit."""
    available = _machine_bytes()
    limit = _cgroup_bytes()
    return available if limit is None else min(available, limit)


def _machine_bytes() -> int:
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return 4 << 30  # Windows has no sysconf: a size that today's machines have


def _cgroup_bytes() -> int | None:
    """What the control group (version 2) leaves, or None where there is no limit."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        current = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return max(0, int(limit) - current) if limit.isdigit() else None


def cuda_cache_bytes(device: torch.device, memory_fraction: float, activation_bytes: int) -> int:
    """Bytes left for the cache once the engine keeps to its share of the device.

    Args:
        device: a CUDA device.
        memory_fraction: the engine's share, others' use of the device counted against it.
        activation_bytes: what a step takes at its peak, beyond what is allocated now.
    """
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    return max(0, int(total * memory_fraction) - (total - free) - activation_bytes)


def memory_taken_by(act: Callable[[], object]) -> int:
    """By how many bytes `act` shrinks the free memory of the current CUDA device."""
    torch.cuda.synchronize()
    before = torch.cuda.mem_get_info()[0]
    act()
    torch.cuda.synchronize()
    return max(0, before - torch.cuda.mem_get_info()[0])


def allocate_caches(
    specs: Sequence[KVCacheSpec], layout: CacheLayout, num_blocks: int, block_size: int, device: torch.device
) -> list[torch.Tensor]:
    """The cache of each layer, ``[num_blocks, *page_shape]``, zeroed: a masked NaN would still poison an average.

    Layers in one slot of the layout share memory, page by page. Where their pages differ in size, the smaller ones
    lie at the beginnings of the larger: contiguous, but not their neighbours'.

    Raises:
        CapacityError: memory does not hold it.
    """
    wanted = layout.bytes_per_block * num_blocks
    if device.type == "cpu" and wanted > available_host_bytes():
        raise _capacity_error(wanted, num_blocks, block_size, device)
    try:
        slots = [_zeros(num_blocks * num_bytes, device) for num_bytes in layout.slot_bytes]
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        raise _capacity_error(wanted, num_blocks, block_size, device) from error
    return [
        _pages(slots[slot], spec.dtype, num_blocks, spec.page_shape(block_size))
        for slot, spec in zip(layout.slot_of_layer, specs, strict=True)
    ]


def _zeros(num_bytes: int, device: torch.device) -> torch.Tensor:
    if device.type != "cpu":
        return torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    # numpy's zeros are the system's: pages are taken when first written, so an idle cache costs nothing
    raw = np.zeros(num_bytes + _ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return torch.from_numpy(raw[start : start + num_bytes])


def _pages(slot: torch.Tensor, dtype: torch.dtype, num_blocks: int, page_shape: tuple[int, ...]) -> torch.Tensor:
    """The memory of a slot as one layer sees it: the beginning of each page."""
    pages = slot.view(dtype).view(num_blocks, -1)
    return pages[:, : math.prod(page_shape)].view(num_blocks, *page_shape)


def _capacity_error(wanted: int, num_blocks: int, block_size: int, device: torch.device) -> CapacityError:
    if device.type == "cuda":
        available = torch.cuda.mem_get_info(device)[0]
    else:
        available = available_host_bytes()
    return CapacityError(
        f"the KV cache of {num_blocks} blocks of {block_size} tokens takes {wanted / 2**20:,.1f} MiB, but "
        f"{device} has {available / 2**20:,.1f} MiB available; lower cache.num_blocks or cache.memory_fraction"
    )
