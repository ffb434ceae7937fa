"""Memory for the cache: what the machine and the container leave, and an allocation that costs nothing until used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from vcore.errors import CapacityError
from vcore.kv_cache.layout import build_cache_layout
from vcore.kv_cache.spec import FullAttentionSpec, KVCacheSpec, LatentCacheSpec, SlidingWindowSpec
from vcore.runner import memory

CPU = torch.device("cpu")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up machine: 1000 KiB available, no container."""
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    (tmp_path / "meminfo").write_text("MemTotal: 4000 kB\nMemFree: 10 kB\nMemAvailable:    1000 kB\n")
    return tmp_path


def test_available_memory_is_what_the_system_says(machine: Path) -> None:
    assert memory.available_host_bytes() == 1000 * 1024


@pytest.mark.parametrize(("limit", "expected"), [("300000", 100_000), ("100000", 0), ("max", 1000 * 1024)])
def test_a_container_may_leave_less(machine: Path, limit: str, expected: int) -> None:
    (machine / "memory.max").write_text(f"{limit}\n")
    (machine / "memory.current").write_text("200000\n")
    assert memory.available_host_bytes() == expected


def test_other_systems_are_asked_by_sysconf(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "meminfo").unlink()
    pages = {"SC_PHYS_PAGES": 100, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(memory.os, "sysconf", pages.__getitem__, raising=False)
    assert memory.available_host_bytes() == 100 * 4096 // 2
    monkeypatch.delattr(memory.os, "sysconf")
    assert memory.available_host_bytes() == 4 << 30


def allocate(specs: Sequence[KVCacheSpec], num_blocks: int) -> list[torch.Tensor]:
    return memory.allocate_caches(specs, build_cache_layout(specs, 4), num_blocks, 4, CPU)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_caches_are_zero_separate_and_aligned(dtype: torch.dtype) -> None:
    specs = [FullAttentionSpec(dtype=dtype, num_kv_heads=3, head_dim=8)] * 2
    caches = allocate(specs, 5)
    assert [tuple(cache.shape) for cache in caches] == [(5, 2, 4, 3, 8)] * 2
    for cache in caches:
        assert cache.dtype == dtype
        assert cache.is_contiguous()
        assert cache.data_ptr() % 64 == 0
        assert not cache.any()
    caches[0].fill_(1)
    assert not caches[1].any()


def test_layers_in_one_slot_share_memory_page_by_page() -> None:
    full = FullAttentionSpec(dtype=torch.float32, num_kv_heads=1, head_dim=8)
    window = SlidingWindowSpec(dtype=torch.float32, num_kv_heads=1, head_dim=8, sliding_window=5)
    caches = allocate([window, full, window, full], 5)
    for cache in caches:
        assert cache.is_contiguous()
    for mine, other in ((0, 1), (2, 3)):
        caches[mine][3] = mine + 1.0
        assert (caches[other][3] == mine + 1).all()
        assert not caches[other][:3].any()
    assert caches[0].data_ptr() != caches[2].data_ptr()


def test_pages_of_different_sizes_begin_together_and_stay_apart() -> None:
    specs = [
        FullAttentionSpec(dtype=torch.bfloat16, num_kv_heads=1, head_dim=9),  # 144 bytes
        LatentCacheSpec(dtype=torch.float32, latent_dim=10),  # 160 bytes
        SlidingWindowSpec(dtype=torch.float32, num_kv_heads=1, head_dim=3, sliding_window=2),  # 96 bytes
    ]
    layout = build_cache_layout(specs, 4)
    assert layout.bytes_per_block == 160
    caches = allocate(specs, 6)
    assert [tuple(cache.shape) for cache in caches] == [(6, 2, 4, 1, 9), (6, 4, 10), (6, 2, 4, 1, 3)]
    for block, cache in enumerate(caches, start=1):
        assert cache.data_ptr() == caches[0].data_ptr()
        assert cache.stride(0) * cache.dtype.itemsize == 160
        assert cache[0].is_contiguous()
        cache[block] = float(block)
    for block, cache in enumerate(caches, start=1):
        assert (cache[block] == block).all()
    assert not any(cache[0].any() or cache[4:].any() for cache in caches)


def test_more_than_there_is_gets_an_error_with_the_numbers(machine: Path) -> None:
    spec = FullAttentionSpec(dtype=torch.float32, num_kv_heads=1, head_dim=64)
    with pytest.raises(CapacityError) as caught:
        allocate([spec, spec], 2000)
    message = str(caught.value)
    assert "2000 blocks of 4 tokens takes 7.8 MiB, but cpu has 1.0 MiB available" in message
    assert "cache.num_blocks" in message


def test_an_allocation_that_fails_gets_the_same_error(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> torch.Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(memory, "_zeros", fail)
    spec = FullAttentionSpec(dtype=torch.float32, num_kv_heads=1, head_dim=1)
    with pytest.raises(CapacityError, match="1 blocks of 4 tokens"):
        allocate([spec], 1)
