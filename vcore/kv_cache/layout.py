"""`CacheLayout`: how the caches of a model's layers share block ids and memory.

Layers with equal specs are of one kind. Each kind is split into groups of at most `num_slots` layers; every
group has block tables of its own, all take their ids from one pool, and the i-th layers of all groups share
one allocation. So a block that one group gives up serves any other:

    layers           F W W W W F W W W W       F: full attention, W: a window; two layers a group

                     slot 0     slot 1
    group 0   F F    layer 0    layer 5        a block id names one page in each slot's allocation;
    group 1   W W    layer 1    layer 2        it belongs to one group at a time
    group 2   W W    layer 3    layer 4
    ...

Plain data: it needs no torch, and travels from the ranks to the scheduler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vcore.kv_cache.spec import KVCacheSpec

__all__ = ["CacheGroup", "CacheLayout", "build_cache_layout"]

_GROUP_COST = 0.01
"""What one more group is worth, as a share of a kind's memory: each is planned and has its tables sent every step."""

_WINDOW_WEIGHT = 0.5
"""How much padding of a kind with a window counts: it keeps few blocks of a long request."""

_PAGE_ALIGNMENT = 16
"""Bytes; where pages of several sizes share an allocation, each begins at a multiple of it."""


@dataclass(frozen=True, slots=True)
class CacheGroup:
    """Layers with equal specs that share a block table."""

    window: int | None
    """`KVCacheSpec.window` of its layers."""
    layer_indices: tuple[int, ...]
    """Indices into `Model.kv_cache_specs`; the i-th lies in slot i."""


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """The groups, and the bytes that a block id stands for."""

    groups: tuple[CacheGroup, ...]
    """At least one: a model that keeps no cache has one group of no layers, whose blocks are managed like any."""
    slot_bytes: tuple[int, ...]
    """Bytes of a page in each slot: those of the largest layer there."""

    @property
    def bytes_per_block(self) -> int:
        """Bytes of one block id over all allocations; 0 if the model keeps no cache."""
        return sum(self.slot_bytes)

    @property
    def windows(self) -> tuple[int | None, ...]:
        """The window of each group."""
        return tuple(group.window for group in self.groups)

    @property
    def group_of_layer(self) -> tuple[int, ...]:
        """By layer, the index of its group."""
        owner = {layer: index for index, group in enumerate(self.groups) for layer in group.layer_indices}
        return tuple(owner[layer] for layer in range(len(owner)))

    @property
    def slot_of_layer(self) -> tuple[int, ...]:
        """By layer, which allocation it shares."""
        slots = {layer: slot for group in self.groups for slot, layer in enumerate(group.layer_indices)}
        return tuple(slots[layer] for layer in range(len(slots)))


def build_cache_layout(specs: Sequence[KVCacheSpec], block_size: int) -> CacheLayout:
    """Divide layers into groups.

    Args:
        specs: of each layer that keeps a cache (`Model.kv_cache_specs`).
        block_size: tokens a block holds.
    """
    kinds: dict[KVCacheSpec, list[int]] = {}
    for layer, spec in enumerate(specs):
        kinds.setdefault(spec, []).append(layer)
    if not kinds:
        return CacheLayout((CacheGroup(None, ()),), ())
    num_slots = _num_slots([(len(layers), spec.window) for spec, layers in kinds.items()])
    groups = [
        CacheGroup(spec.window, tuple(layers[start : start + num_slots]))
        for spec, layers in kinds.items()
        for start in range(0, len(layers), num_slots)
    ]
    # What sees everything narrows a prefix hit at the least cost, so it is asked first.
    groups.sort(key=lambda group: group.window is not None)
    return CacheLayout(tuple(groups), _slot_bytes(specs, groups, block_size))


def _num_slots(kinds: list[tuple[int, int | None]]) -> int:
    """Layers a group, for kinds of (layers, window): little padding, and not many groups."""

    def cost(size: int) -> float:
        total = 0.0
        for count, window in kinds:
            num_groups = -(-count // size)
            padding = 1 - count / (num_groups * size)
            total += padding * (1.0 if window is None else _WINDOW_WEIGHT) + num_groups * _GROUP_COST
        return total

    largest = max(count for count, _ in kinds)
    return min(range(largest, 0, -1), key=cost)


def _slot_bytes(specs: Sequence[KVCacheSpec], groups: Sequence[CacheGroup], block_size: int) -> tuple[int, ...]:
    num_slots = max(len(group.layer_indices) for group in groups)
    sizes: list[set[int]] = [set() for _ in range(num_slots)]
    for group in groups:
        for slot, layer in enumerate(group.layer_indices):
            sizes[slot].add(specs[layer].page_bytes(block_size))
    return tuple(
        max(pages) if len(pages) == 1 else -(-max(pages) // _PAGE_ALIGNMENT) * _PAGE_ALIGNMENT for pages in sizes
    )
