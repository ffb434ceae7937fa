"""How layers are divided into groups, and what a block id costs."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
import torch

from vcore.kv_cache import (
    CacheGroup,
    CacheLayout,
    FullAttentionSpec,
    KVCacheSpec,
    LatentCacheSpec,
    SlidingWindowSpec,
    build_cache_layout,
)

BLOCK_SIZE = 16
FULL = FullAttentionSpec(dtype=torch.float32, num_kv_heads=2, head_dim=4)
WINDOW = SlidingWindowSpec(dtype=torch.float32, num_kv_heads=2, head_dim=4, sliding_window=32)
PAGE = FULL.page_bytes(BLOCK_SIZE)


def test_one_kind_is_one_group_of_all_layers() -> None:
    for spec, window in ((FULL, None), (WINDOW, 32)):
        layout = build_cache_layout([spec] * 5, BLOCK_SIZE)
        assert layout.groups == (CacheGroup(window, (0, 1, 2, 3, 4)),)
        assert layout.bytes_per_block == 5 * PAGE
        assert (layout.group_of_layer, layout.slot_of_layer) == ((0,) * 5, (0, 1, 2, 3, 4))


def test_a_model_without_caches_has_one_group_of_no_layers() -> None:
    layout = build_cache_layout([], BLOCK_SIZE)
    assert layout == CacheLayout((CacheGroup(None, ()),), ())
    assert (layout.bytes_per_block, layout.windows, layout.group_of_layer) == (0, (None,), ())


@pytest.mark.parametrize(
    ("pattern", "groups", "slots"),
    [
        ("WF" * 13, 2, 13),  # Gemma 2 2B
        ("WWWWWF" * 3, 6, 3),  # Gemma 3 270M
        (("WWWWWF" * 5)[:26], 7, 4),  # Gemma 3 1B: 22 and 4
        (("WWWWWF" * 6)[:34], 7, 5),  # Gemma 3 4B: 29 and 5
        (("WWWWWF" * 11)[:62], 7, 10),  # Gemma 3 27B: 52 and 10
        ("WWWF" * 12, 4, 12),
        ("W" * 24 + "F", 25, 1),
    ],
)
def test_groups_are_few_and_hardly_padded(pattern: str, groups: int, slots: int) -> None:
    layout = build_cache_layout([FULL if kind == "F" else WINDOW for kind in pattern], BLOCK_SIZE)
    assert (len(layout.groups), len(layout.slot_bytes)) == (groups, slots)
    full = [group for group in layout.groups if group.window is None]
    # A long request is made of these: none of their slots is padding.
    assert sum(len(group.layer_indices) for group in full) == slots * len(full)


def test_every_layer_has_one_place_and_its_group_has_its_kind() -> None:
    other = SlidingWindowSpec(dtype=torch.float32, num_kv_heads=2, head_dim=4, sliding_window=7)
    specs: list[KVCacheSpec] = [WINDOW, FULL, other, WINDOW, FULL, WINDOW, other, WINDOW, WINDOW]
    layout = build_cache_layout(specs, BLOCK_SIZE)
    places = list(zip(layout.group_of_layer, layout.slot_of_layer, strict=True))
    assert len(set(places)) == len(specs)
    for layer, (group, slot) in enumerate(places):
        assert layout.groups[group].layer_indices[slot] == layer
        assert layout.groups[group].window == specs[layer].window
    assert sorted(layer for group in layout.groups for layer in group.layer_indices) == list(range(len(specs)))
    # Groups that see everything come first.
    assert list(layout.windows) == sorted(layout.windows, key=lambda window: window is not None)


def test_a_slot_is_as_large_as_its_largest_page() -> None:
    small = LatentCacheSpec(dtype=torch.bfloat16, latent_dim=5)  # 160 bytes
    layout = build_cache_layout([FULL, small], BLOCK_SIZE)
    assert layout.slot_bytes == (PAGE,)
    odd = LatentCacheSpec(dtype=torch.int8, latent_dim=33)  # 528 bytes, more than 16 tokens' worth of the other
    tiny = LatentCacheSpec(dtype=torch.float32, latent_dim=1)
    assert build_cache_layout([odd], 1).slot_bytes == (33,)
    assert build_cache_layout([odd, tiny], 1).slot_bytes == (48,), "where sizes differ, pages are aligned"


def test_it_travels_to_the_scheduler_which_needs_no_torch() -> None:
    layout = build_cache_layout([FULL, WINDOW], BLOCK_SIZE)
    assert pickle.loads(pickle.dumps(layout)) == layout
    script = "import sys, vcore.kv_cache.layout, vcore.kv_cache.manager; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
