"""The replay of the cache alone: against published hit rates, against a few lines of plain Python, and its edges."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

import pytest
from vcore_policies.eviction.lru import LRUEviction

from vcore.errors import ConfigError, PolicyError
from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.simulate import CacheReplay, ideal_cache, optimal_cache, replay_cache
from vcore.simulate.block_names import number_blocks
from vcore.traces import TraceRequest

Maker = Callable[[EvictionContext], EvictionPolicy]
Prompts = Sequence[Sequence[int]]

# Trace, blocks; FIFO, LRU, LRU with the head of a chain first, LFU, SLRU, OPT, ideal.
TABLE = [
    ("mooncake_conversation", 5000, (0.1057, 0.1128, 0.1104, 0.1505, 0.1051, 0.3283, 0.3456)),
    ("mooncake_synthetic", 1000, (0.0193, 0.0194, 0.0184, 0.0259, 0.0210, 0.1561, 0.3293)),
    ("mooncake_synthetic", 5000, (0.0810, 0.0858, 0.0858, 0.1145, 0.1007, 0.2979, 0.3293)),
    ("mooncake_synthetic", 10000, (0.1661, 0.1726, 0.1715, 0.1999, 0.1854, 0.3293, 0.3293)),
    ("mooncake_synthetic", 50000, (0.3293, 0.3293, 0.3293, 0.3293, 0.3293, 0.3293, 0.3293)),
    ("agent_miniswe", 250, (0.0334, 0.0558, 0.0116, 0.0581, 0.0583, 0.1908, 0.9380)),
    ("agent_miniswe", 500, (0.1108, 0.1265, 0.0945, 0.1799, 0.1444, 0.3357, 0.9380)),
    ("agent_miniswe", 1000, (0.2159, 0.2644, 0.1863, 0.3382, 0.3225, 0.5216, 0.9380)),
    ("agent_miniswe", 2000, (0.4162, 0.5755, 0.3542, 0.6502, 0.6847, 0.7827, 0.9380)),
    ("agent_miniswe", 4000, (0.9104, 0.9380, 0.9380, 0.9202, 0.9380, 0.9380, 0.9380)),
    ("agent_magagent", 250, (0.0626, 0.0822, 0.0648, 0.1674, 0.1725, 0.3264, 0.8651)),
    ("agent_magagent", 500, (0.1936, 0.2015, 0.1557, 0.2883, 0.2583, 0.5104, 0.8651)),
    ("agent_magagent", 1000, (0.4024, 0.4791, 0.3920, 0.4925, 0.4890, 0.7395, 0.8651)),
    ("agent_magagent", 2000, (0.7295, 0.8624, 0.8463, 0.7742, 0.8310, 0.8651, 0.8651)),
    ("agent_magagent", 4000, (0.8552, 0.8651, 0.8651, 0.8651, 0.8651, 0.8651, 0.8651)),
]


class HeadFirst(LRUEviction):
    """What a careless LRU does: the head of a chain is older than its tail."""

    def on_free(self, block_ids: Sequence[int]) -> None:
        super().on_free(block_ids[::-1])


@pytest.mark.parametrize(("trace", "num_blocks", "rates"), TABLE, ids=lambda value: str(value)[:21])
def test_published_hit_rates_are_reproduced(
    trace: str,
    num_blocks: int,
    rates: Sequence[float],
    maker: Callable[[str], Maker],
    recorded: Callable[[str], Prompts],
) -> None:
    prompts = recorded(trace)
    makers = [maker("fifo"), maker("lru"), lambda context: HeadFirst(options=None, context=context)]
    makers += [maker("lfu"), maker("slru")]
    found = [replay_cache(prompts, num_blocks, make, eviction_name="test").hit_rate for make in makers]
    found += [optimal_cache(prompts, num_blocks).hit_rate, ideal_cache(prompts).hit_rate]
    assert found == pytest.approx(rates, abs=0.005)


def tree_prompts(rng: random.Random, count: int) -> list[list[int]]:
    """Prompts that branch off one another: an id stands for everything before it."""
    ids: dict[tuple[int, int], int] = {}
    prompts = []
    for _ in range(count):
        prompt, parent = [], -1
        for _ in range(rng.randint(1, 6)):
            parent = ids.setdefault((parent, rng.randrange(3)), len(ids))
            prompt.append(parent)
        prompts.append(prompt)
    return prompts


def naive_lru(prompts: Prompts, num_blocks: int) -> int:
    """Hits, with nothing but a list."""
    cached: list[int] = []
    hits = 0
    for prompt in prompts:
        hits += len(list(itertools.takewhile(cached.__contains__, prompt)))
        cached = [block_id for block_id in cached if block_id not in prompt] + list(prompt)[::-1]
        cached = cached[-num_blocks:]
    return hits


def best_of_all_choices(prompts: Prompts, num_blocks: int) -> int:
    """Hits of the best of every possible choice of what to keep."""
    best = {frozenset[int](): 0}
    for prompt in prompts:
        after: dict[frozenset[int], int] = {}
        for kept, hits in best.items():
            hits += len(list(itertools.takewhile(kept.__contains__, prompt)))
            offered = kept | set(prompt)
            for choice in itertools.combinations(sorted(offered), min(num_blocks, len(offered))):
                key = frozenset(choice)
                after[key] = max(after.get(key, 0), hits)
        best = after
    return max(best.values())


def test_lru_is_what_a_list_does(maker: Callable[[str], Maker]) -> None:
    rng = random.Random(3)
    for num_blocks in (1, 2, 5, 20):
        prompts = tree_prompts(rng, 120)
        counts = replay_cache(prompts, num_blocks, maker("lru"), eviction_name="lru")
        assert counts.hits == naive_lru(prompts, num_blocks)
        assert counts.blocks == sum(map(len, prompts))


def test_the_optimum_is_the_best_of_all_choices() -> None:
    rng = random.Random(5)
    for num_blocks in (1, 2, 3):
        for _ in range(6):
            prompts = [prompt[:3] for prompt in tree_prompts(rng, 9)]
            assert optimal_cache(prompts, num_blocks).hits == best_of_all_choices(prompts, num_blocks)


@pytest.mark.parametrize("name", ["fifo", "lru", "lfu", "slru", "s3fifo", "priority", "ttl", "cost_aware"])
def test_no_policy_beats_the_optimum_and_all_find_everything_in_a_large_cache(
    name: str, maker: Callable[[str], Maker]
) -> None:
    prompts = tree_prompts(random.Random(11), 200)
    for num_blocks in (1, 7, 40):
        hits = replay_cache(prompts, num_blocks, maker(name), eviction_name=name).hits
        assert hits <= optimal_cache(prompts, num_blocks).hits
    assert replay_cache(prompts, 5000, maker(name), eviction_name=name) == ideal_cache(prompts)


def test_a_whole_prompt_can_hit_and_blocks_in_use_do_not_count(maker: Callable[[str], Maker]) -> None:
    cache = CacheReplay(2, 4, maker("lru"), eviction_name="lru")
    assert cache.serve([1, 2]) == 0
    assert cache.serve([1, 2]) == 2
    assert cache.serve([1, 2, 3, 4]) == 2, "the two that hit are held, and need no room in the cache of two"
    assert cache.serve([1, 2, 3, 4]) == 2, "the tail did not stay"
    assert cache.serve([]) == 0


def test_a_block_behind_a_gap_is_no_hit_but_is_offered_again() -> None:
    cache = CacheReplay(2, 3, lambda context: HeadFirst(options=None, context=context), eviction_name="head first")
    cache.serve([1, 2, 3])  # 2 and 3 stay
    assert cache.serve([1, 2, 3]) == 0
    assert cache.serve([9]) == 0  # 2 was as old as 3, but for the order, so 3 and 9 stay
    assert cache.serve([9]) == 1


def test_a_policy_that_breaks_its_contract_is_named() -> None:
    class Stubborn(LRUEviction):
        def pick_victims(self, count: int) -> list[int]:
            return []

    with pytest.raises(PolicyError, match="stubborn"):
        replay_cache(
            [[1, 2], [3, 4]], 1, lambda context: Stubborn(options=None, context=context), eviction_name="stubborn"
        )


@pytest.mark.parametrize(("prompts", "num_blocks"), [([[1]], 0), ([[], []], 5), ([], 5)])
def test_nothing_to_replay_is_an_error(prompts: Prompts, num_blocks: int, maker: Callable[[str], Maker]) -> None:
    with pytest.raises(ConfigError, match="blocks"):
        replay_cache(prompts, num_blocks, maker("lru"), eviction_name="lru")
    with pytest.raises(ConfigError, match="blocks"):
        optimal_cache(prompts, num_blocks)


def test_an_id_behind_another_beginning_is_another_block() -> None:
    assert number_blocks([[7, 8, 9], [7, 8], []]) == [(7, 8, 9), (7, 8), ()]
    first, second, third = number_blocks([[1, 1, 1], [1, 1, 2], [2, 1]])
    assert first[:2] == second[:2]
    assert len({*first, *second, *third}) == 6
    assert first[0] == 1
    assert third[0] not in {*first, *second}


def test_ids_of_any_size_and_ids_that_repeat_are_replayed(maker: Callable[[str], Maker]) -> None:
    prompts = number_blocks([[2**64 - 1, -(2**63), 5], [2**64 - 1, -(2**63), 5], [3, 3, 3], [3, 3, 4]])
    counts = replay_cache(prompts, 20, maker("lru"), eviction_name="lru")
    assert (counts.hits, counts.blocks) == (3 + 2, 12)
    assert optimal_cache(prompts, 20) == ideal_cache(prompts) == counts


@pytest.mark.parametrize(("ttl", "back_at", "hits"), [(None, 3.0, 0), (9.0, 3.0, 2), (9.0, 30.0, 0)])
def test_a_pin_lasts_by_the_arrivals(
    ttl: float | None, back_at: float, hits: int, maker: Callable[[str], Maker]
) -> None:
    prompts = [[1, 2], [3, 4], [5, 6], [7, 8], [1, 2]]
    times = [0.0, 1.0, back_at - 1.0, back_at - 0.5, back_at]
    requests = [
        TraceRequest(arrival_s=time, input_length=8, output_length=1, cache_ttl=ttl if time == 0.0 else None)
        for time in times
    ]
    assert replay_cache(prompts, 4, maker("ttl"), eviction_name="ttl", requests=requests).hits == hits


def test_a_request_has_its_priority(maker: Callable[[str], Maker]) -> None:
    prompts = [[1, 2], [3, 4], [5, 6], [1, 2]]
    requests = [
        TraceRequest(arrival_s=0.0, input_length=8, output_length=1, priority=priority) for priority in (-1, 0, 0, 0)
    ]
    assert replay_cache(prompts, 4, maker("priority"), eviction_name="priority", requests=requests).hits == 2
    assert replay_cache(prompts, 4, maker("priority"), eviction_name="priority").hits == 0
