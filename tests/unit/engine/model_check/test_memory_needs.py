"""Weights and cache against the memory of a device."""

from __future__ import annotations

import pytest
import torch

from vcore.config import CacheConfig
from vcore.engine.model_check import MemoryNeeds
from vcore.engine.model_check.memory import memory_needs
from vcore.engine.outline import ModelOutline
from vcore.errors import CapacityError
from vcore.kv_cache.spec import FullAttentionSpec, KVCacheSpec, SlidingWindowSpec
from vcore.runner.settings import CPU_CACHE_BYTES_LIMIT

CPU = torch.device("cpu")
FULL = FullAttentionSpec(dtype=torch.float32, num_kv_heads=1, head_dim=4)
WINDOW = SlidingWindowSpec(dtype=torch.float32, num_kv_heads=1, head_dim=4, sliding_window=4)
BLOCK = 2 * 4 * 4 * 4
"""Bytes of a block of four tokens of either."""


def needs(
    *specs: KVCacheSpec, weight_bytes: int = 1000, config: CacheConfig | None = None, device: torch.device = CPU
) -> MemoryNeeds | None:
    outline = ModelOutline(layers=(), kv_cache_specs=specs, num_parameters=250, weight_bytes=weight_bytes)
    config = config or CacheConfig(memory_fraction=0.5)
    return memory_needs(outline, config, device, block_size=4, max_model_len=40, max_chunk=4)


@pytest.fixture
def available(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with room for the weights and 100 blocks of a layer, of which half is for the cache."""
    monkeypatch.setattr("vcore.engine.model_check.memory.available_host_bytes", lambda: 1000 + 100 * BLOCK)


@pytest.mark.usefixtures("available")
def test_the_cache_gets_its_share_of_what_the_weights_leave() -> None:
    found = needs(FULL)
    assert found is not None
    assert (found.device_bytes, found.cache_bytes) == (1000 + 100 * BLOCK, 50 * BLOCK)
    assert found.max_cached_tokens == 49 * 4  # one block is the null block
    assert found.request_bytes == 10 * BLOCK
    assert found.num_requests == 4


@pytest.mark.usefixtures("available")
def test_groups_of_layers_share_the_blocks() -> None:
    """One layer that keeps everything and one that keeps four tokens: each token takes a place in both."""
    found = needs(FULL, WINDOW)
    assert found is not None
    assert found.max_cached_tokens == 49 // 2 * 4
    assert 10 * BLOCK < found.request_bytes < 20 * BLOCK
    assert found.num_requests == 49 // (found.request_bytes // BLOCK)


@pytest.mark.usefixtures("available")
def test_a_number_of_blocks_that_is_asked_for_is_taken() -> None:
    found = needs(FULL, config=CacheConfig(num_blocks=11))
    assert found is not None
    assert (found.cache_bytes, found.num_requests) == (11 * BLOCK, 1)


@pytest.mark.usefixtures("available")
def test_a_model_without_a_cache_needs_none() -> None:
    found = needs()
    assert found is not None
    assert found.request_bytes == 0


@pytest.mark.usefixtures("available")
def test_what_does_not_fit_is_told_with_the_numbers() -> None:
    with pytest.raises(CapacityError, match=r"the weights take 1,000,000 bytes, and cpu has 13,800 for them"):
        needs(FULL, weight_bytes=1_000_000)
    with pytest.raises(CapacityError, match=r"at least 2 blocks of 128 bytes, and 128 bytes of cpu"):
        needs(FULL, weight_bytes=1000 + 98 * BLOCK)
    with pytest.raises(CapacityError, match="at least 3 blocks"):
        needs(FULL, WINDOW, config=CacheConfig(num_blocks=2))


def test_the_cache_on_a_large_machine_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcore.engine.model_check.memory.available_host_bytes", lambda: 2**40)
    found = needs(FULL)
    assert found is not None
    assert found.cache_bytes == CPU_CACHE_BYTES_LIMIT


def test_on_cuda_the_share_is_of_the_whole_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1000 blocks others use 300, half may be ours: 200 are left, less the weights."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (700 * BLOCK, 1000 * BLOCK))
    found = needs(FULL, weight_bytes=BLOCK, device=torch.device("cuda"))
    assert found is not None
    assert (found.device_bytes, found.cache_bytes) == (200 * BLOCK, 199 * BLOCK)


def test_of_other_devices_nothing_is_known() -> None:
    assert needs(FULL, device=torch.device("meta")) is None
