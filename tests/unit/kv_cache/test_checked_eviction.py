"""Eviction policies that fail: each is named once, and the longest free block goes instead."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from vcore_policies.eviction.lru import LRUEviction

from vcore.errors import PolicyError
from vcore.kv_cache import BlockPool


class Hostile(LRUEviction):
    """LRU whose answers and callbacks a test replaces."""

    def __init__(self, answer: Callable[[list[int]], object], broken_call: str | None) -> None:
        super().__init__(options=None, context=None)  # type: ignore[arg-type]
        self._answer = answer
        self._broken_call = broken_call
        self.num_asked = 0

    def pick_victims(self, count: int) -> Sequence[int]:
        self.num_asked += 1
        return self._answer(super().pick_victims(count))  # type: ignore[return-value]

    def on_insert(self, block_ids: Sequence[int]) -> None:
        self._break("on_insert")

    def on_hit(self, block_ids: Sequence[int]) -> None:
        super().on_hit(block_ids)
        self._break("on_hit")

    def on_free(self, block_ids: Sequence[int]) -> None:
        super().on_free(block_ids)
        self._break("on_free")

    def on_evict(self, block_ids: Sequence[int]) -> None:
        super().on_evict(block_ids)
        self._break("on_evict")

    def _break(self, call: str) -> None:
        if call == self._broken_call:
            raise RuntimeError(f"{call} is broken")


def endless(victims: list[int]) -> object:
    class Endless(list[int]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            while True:
                yield 1

    return Endless(victims)


def raises(victims: list[int]) -> object:
    raise ValueError("no idea")


def ends_the_process(victims: list[int]) -> object:
    sys.exit("no more")


NONSENSE: dict[str, Callable[[list[int]], object]] = {
    "raises": raises,
    "ends the process": ends_the_process,
    "none": lambda victims: None,
    "too few": lambda victims: victims[:-1],
    "too many": lambda victims: [*victims, 5],
    "duplicates": lambda victims: [victims[0]] * len(victims),
    "the null block": lambda victims: [0, *victims[1:]],
    "a block in use": lambda victims: [4, *victims[1:]],
    "a block out of range": lambda victims: [10_000, *victims[1:]],
    "a negative id": lambda victims: [-1, *victims[1:]],
    "text": lambda victims: "12",
    "floats": lambda victims: [float(victim) for victim in victims],
    "endless": endless,
}


def used_pool(policy: Hostile, *, strict: bool = False) -> BlockPool:
    """Blocks 1 to 3 are cached and unused, 3 the longest; block 4 is cached and used; no block is free."""
    pool = BlockPool(5, 4, lambda context: policy, eviction_name="hostile 1.0", strict=strict)
    blocks = pool.allocate(4)
    assert blocks == [1, 2, 3, 4]
    for block_id in blocks:
        pool.cache(block_id, bytes([block_id]), None, 0, 0)
    pool.acquire([1])
    pool.release([1])
    pool.release([3, 2, 1])
    return pool


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_named_once_and_the_longest_free_blocks_go(name: str, caplog: pytest.LogCaptureFixture) -> None:
    policy = Hostile(NONSENSE[name], None)
    pool = used_pool(policy)
    with caplog.at_level(logging.ERROR):
        assert sorted(pool.allocate(2) or ()) == [2, 3]
    assert pool.by_hash == ({b"\x01": 1, b"\x04": 4},)
    assert pool.fault is not None
    assert pool.fault.startswith("hostile 1.0: pick_victims ")
    assert "2 different ids of cached blocks" in pool.fault
    pool.allocate(1)
    assert policy.num_asked == 1, "it is not asked again"
    assert len(caplog.records) == 1


@pytest.mark.parametrize("call", ["on_insert", "on_hit", "on_free", "on_evict"])
def test_a_callback_that_raises_costs_the_policy_its_standing(call: str) -> None:
    policy = Hostile(lambda victims: victims, call)
    pool = used_pool(policy)
    assert sorted(pool.allocate(2) or ()) == [2, 3]
    assert pool.num_cached == 2
    assert pool.fault is not None
    assert f"{call} raised" in pool.fault


@pytest.mark.parametrize("name", ["raises", "duplicates"])
def test_strict_makes_it_fatal(name: str) -> None:
    pool = used_pool(Hostile(NONSENSE[name], None), strict=True)
    with pytest.raises(PolicyError, match=r"hostile 1\.0.*plugins\.strict"):
        pool.allocate(2)


def test_numpy_integers_are_ids(caplog: pytest.LogCaptureFixture) -> None:
    pool = used_pool(Hostile(lambda victims: np.array(victims), None))
    assert sorted(pool.allocate(2) or ()) == [2, 3]
    assert pool.fault is None


def test_an_answer_that_cannot_be_shown_is_still_named() -> None:
    class Unprintable:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    pool = used_pool(Hostile(lambda victims: [Unprintable()], None))
    assert pool.allocate(2) is not None
    assert pool.fault is not None
