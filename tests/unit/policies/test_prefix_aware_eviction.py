"""What `prefix_aware` learns and does: rates and worths against their formulas, order, bounds, hit rates."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from vcore_policies.eviction.lfu import LFUEviction
from vcore_policies.eviction.options import PrefixAwareOptions
from vcore_policies.eviction.prefix_aware import PrefixAwareEviction
from vcore_policies.eviction.reuse_hazard import NUM_CLASSES, ReuseHazard, age_bin, age_bins, gap_class, reuse_class

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.simulate import CacheReplay, optimal_cache, replay_cache
from vcore.traces import read_trace

TRACES = Path(__file__).resolve().parents[4] / "shared" / "data" / "traces"

NONE = np.zeros(0, np.int64)


def worths(hazard: ReuseHazard, kind: int, age: int = 1) -> list[float]:
    """By age bin, of a class, one of whose blocks is that old."""
    alive = np.array([kind]), np.array([age]), np.array([1e-9])
    return hazard.worths(*alive, np.array([kind]))[0].tolist()  # type: ignore[no-any-return]


def test_ages_fall_into_half_octaves() -> None:
    ages = [1, 2, 3, 4, 5, 7, 8, 10, 11, 15, 16]
    assert [age_bin(age) for age in ages] == [0, 1, 1, 2, 3, 3, 4, 4, 5, 5, 6]
    assert age_bins(np.array(ages)).tolist() == [age_bin(age) for age in ages]


def test_classes_differ_by_all_that_is_known_of_a_block_and_have_a_bound() -> None:
    gap = gap_class(9)
    base = reuse_class(3, gap, False, True, 100)
    others = [
        reuse_class(4, gap, False, True, 100),
        reuse_class(3, gap_class(4), False, True, 100),
        reuse_class(3, gap, True, True, 100),
        reuse_class(3, gap, False, False, 100),
        reuse_class(3, gap, False, True, 1000),
    ]
    assert len({base, *others}) == 6
    assert reuse_class(3, gap, False, True, 127) == base
    assert reuse_class(2**60, gap_class(2**60), True, True, 2**60) < NUM_CLASSES


def test_gaps_differ_by_powers_of_2_and_none_differs_from_all() -> None:
    assert [gap_class(gap) for gap in (0, 1, 2, 3, 4, 7, 8)] == [0, 1, 2, 2, 3, 3, 4]
    assert gap_class(2**60) == gap_class(2**61)


def test_before_anything_is_seen_worth_falls_with_age() -> None:
    found = worths(ReuseHazard(), reuse_class(1, 0, False, False, 10), age=500)
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(0.5 / 11, rel=0.1)


def test_what_is_never_reused_is_worth_ever_less_and_what_is_always_reused_more() -> None:
    hazard = ReuseHazard()
    dead, alive = reuse_class(1, 0, True, False, 10), reuse_class(1, 0, False, False, 10)
    before = worths(hazard, dead)[0]
    for _ in range(200):
        hazard.end(dead, 60, 1.0, reused=False)
        hazard.end(alive, 2, 1.0, reused=True)
    assert worths(hazard, dead)[0] < before / 5
    assert worths(hazard, alive)[0] > 4 * before


def test_a_long_wait_for_a_sure_reuse_is_worth_its_hits_over_its_time() -> None:
    """All spells of a class are reused at age 100: at age 1 that is a hit in about 100 requests; close to it, more."""
    hazard = ReuseHazard()
    kind = reuse_class(2, gap_class(100), False, True, 10)
    for _ in range(10_000):
        hazard.end(kind, 100, 1.0, reused=True)
    found = worths(hazard, kind, age=90)
    assert found[0] == pytest.approx(1 / 100, rel=0.3)
    assert found[age_bin(90)] > 3 * found[0]


def test_rates_are_reuses_over_exposure_drawn_towards_the_coarser_class() -> None:
    """One bin: by hand through the five levels, of which the three kinds share more and more."""
    hazard = ReuseHazard()
    kind = reuse_class(2, gap_class(3), False, False, 10)
    other_length = reuse_class(2, gap_class(3), False, False, 1000)
    other_gap = reuse_class(2, gap_class(30), False, False, 10)
    used_once = reuse_class(1, 0, False, False, 10)
    for _ in range(30):
        hazard.end(kind, 1, 1.0, reused=True)
    for _ in range(50):
        hazard.end(other_length, 1, 1.0, reused=False)
        hazard.end(other_gap, 1, 1.0, reused=False)
        hazard.end(used_once, 1, 1.0, reused=False)
    wanted = np.array([kind, other_length, other_gap])
    found = hazard._rates(NONE, NONE, np.zeros(0), wanted, 1)[:, 0]
    reused_before = (30 + 2) / (130 + 2 / (0.5 / 11))
    for row, levels in enumerate([[(30, 80)] * 3 + [(30, 30)], [(30, 80)] * 3 + [(0, 50)], [(0, 50)] * 4]):
        rate = reused_before
        for reuses, exposure in levels:
            rate = (reuses + 8) / (exposure + 8 / rate)
        assert found[row] == pytest.approx(rate)


def test_more_classes_than_rows_at_first() -> None:
    hazard = ReuseHazard()
    kinds = [
        reuse_class(uses, gap_class(gap), False, False, 10)
        for uses in (2, 3, 4, 5, 8, 16, 32, 64, 128, 256)
        for gap in (1, 4, 16, 64, 256, 1024, 4096)
    ]
    kinds = sorted(set(kinds))
    for place, kind in enumerate(kinds):
        for _ in range(200):
            hazard.end(kind, 2, 1.0, reused=place % 2 == 0)
    assert len(kinds) > 64
    found = hazard._rates(NONE, NONE, np.zeros(0), np.array(kinds), 2)[:, 1]
    assert min(found[::2]) > 2 * max(found[1::2])


def test_worth_is_the_best_of_all_horizons() -> None:
    """The array form against sums, one horizon at a time."""
    hazard = ReuseHazard()
    rng = random.Random(1)
    kind = reuse_class(1, 0, False, False, 10)
    for _ in range(300):
        hazard.end(kind, rng.choice([1, 2, 9, 9, 9, 40, 300]), 1.0, reused=rng.random() < 0.6)
    rates = hazard._rates(NONE, NONE, np.zeros(0), np.array([kind]), 16)[0]
    widths = [1, 2, 1, 3, 3, 5, 6, 10, 13, 19, 26, 38, 53, 75, 106, 150]
    found = worths(hazard, kind)
    for start in range(16):
        best, hits, time, alive = 0.0, 0.0, 0.0, 1.0
        for rate, width in list(zip(rates, widths, strict=True))[start:]:
            gone = 1 - math.exp(-rate * width)
            hits += alive * gone
            time += alive * gone / rate
            alive *= 1 - gone
            best = max(best, hits / time)
        assert found[start] == pytest.approx(best, rel=1e-6)


def test_old_experience_fades() -> None:
    hazard = ReuseHazard()
    kind = reuse_class(1, 0, False, False, 10)
    for _ in range(100):
        hazard.end(kind, 50, 1.0, reused=False)
    low = worths(hazard, kind)[0]
    hazard.fade(0.01)
    assert worths(hazard, kind)[0] > 3 * low


class Watched:
    """A cache whose policy is at hand."""

    def __init__(self, num_blocks: int, longest: int, **options: float) -> None:
        def make(context: EvictionContext) -> PrefixAwareEviction:
            self.policy = PrefixAwareEviction(options=PrefixAwareOptions(**options), context=context)
            return self.policy

        self.cache = CacheReplay(num_blocks, longest, make, eviction_name="prefix_aware")


def branching(seed: int, count: int) -> list[list[int]]:
    rng = random.Random(seed)
    ids: dict[tuple[int, int], int] = {}
    prompts = []
    for _ in range(count):
        prompt, parent = [], -1
        for _ in range(rng.randint(1, 9)):
            parent = ids.setdefault((parent, min(rng.randrange(5), rng.randrange(5))), len(ids))
            prompt.append(parent)
        prompts.append(prompt)
    return prompts


def test_no_block_goes_before_one_that_follows_it() -> None:
    watched = Watched(25, 9)
    parents: dict[int, int] = {}
    for prompt in branching(1, 400):
        parents |= dict(zip(prompt[1:], prompt, strict=False))
        watched.cache.serve(prompt)
        cached = watched.cache.cached_ids()
        assert all(parents[block] in cached for block in cached if block in parents)


def test_each_victim_is_the_leaf_that_is_worth_least() -> None:
    """The heap of cohorts against a look at every block."""
    watched = Watched(25, 9)
    checked = 0
    for prompt in branching(2, 300):
        watched.cache.serve(prompt)
        policy, view = watched.policy, watched.policy._view
        cohorts = policy._cohorts
        unused = {block for block, cohort in enumerate(cohorts.of_block) if cohort >= 0}
        worth = {}
        victims = policy.pick_victims(len(unused))  # ranks whatever is new
        ranked = {c: value for value, since, c in policy._order._heap if cohorts.since[c] == since}
        gone: set[int] = set()
        for victim in victims[:8]:
            leaves = [
                block
                for block in unused - gone
                if not any(view.parent(other) == block for other in unused - gone) and cohorts.of_block[block] in ranked
            ]
            worth = {block: ranked[cohorts.of_block[block]] for block in leaves}
            if victim not in worth:
                break  # of a cohort that was no leaf's when the heap was made
            assert worth[victim] == min(worth.values())
            gone.add(victim)
            checked += 1
    assert checked > 500


def test_what_is_remembered_is_bounded_and_leaves_nothing_behind() -> None:
    watched = Watched(300, 9, ghosts=2, least_ghosts=0)
    rng = random.Random(3)
    for number in range(1500):
        start = rng.choice([0, 10, 20]) if rng.random() < 0.2 else 1000 + 10 * number
        watched.cache.serve(range(start, start + rng.randint(1, 9)))
        policy = watched.policy
        assert len(policy._ghosts) <= 2 * 300
    cohorts = policy._cohorts
    unused = sum(cohort >= 0 for cohort in cohorts.of_block)
    assert int(cohorts.sizes.sum()) == unused + len(policy._ghosts)
    assert len(policy._order._heap) < 4 * 300
    assert int((cohorts.sizes > 0).sum()) + len(cohorts._free) == len(cohorts.sizes)


def test_it_learns_from_what_came_back_too_late() -> None:
    """A loop that does not fit: LRU finds nothing, ever."""
    prompts = [range(100 * (turn % 20), 100 * (turn % 20) + 10) for turn in range(600)]
    found = replay_cache(
        prompts, 100, lambda context: PrefixAwareEviction(options=None, context=context), eviction_name="prefix_aware"
    )
    assert found.hits > 0.8 * optimal_cache(prompts, 100).hits


def test_blocks_of_several_groups_are_told_apart() -> None:
    """Groups have equal content hashes; each group's blocks count for themselves."""
    from vcore.kv_cache import KVCacheManager

    made: list[PrefixAwareEviction] = []

    def make(context: EvictionContext) -> PrefixAwareEviction:
        made.append(PrefixAwareEviction(options=None, context=context))
        return made[0]

    kv = KVCacheManager(9, 1, make, eviction_name="prefix_aware", windows=(None, 64), strict=True)
    for tokens in ([1, 2, 3], [4, 5, 6, 7], [1, 2, 3]):
        blocks = kv.open((), 0)
        match = kv.find_prefix(blocks, tokens)
        kv.admit(blocks, match, len(tokens) - match.num_columns)
        kv.publish(blocks, tokens, len(tokens))
        kv.end_step()
        kv.release(blocks, finished=True)
    again = [made[0]._uses[block_id] for by_hash in kv.pool.by_hash for block_id in by_hash.values()]
    assert again.count(2) == 6, "all three blocks of both groups came back"


def hits(prompts: Sequence[Sequence[int]], num_blocks: int, policy: type[EvictionPolicy]) -> int:
    return replay_cache(
        prompts, num_blocks, lambda context: policy(options=None, context=context), eviction_name="any"
    ).hits


def documents(seed: int, count: int) -> Iterator[list[int]]:
    """Prompts of a document, of which a few are asked about often, and a question of their own; for ever the same."""
    rng = random.Random(seed)
    lengths = [rng.randint(10, 80) for _ in range(100)]
    weights = [1.0 / (rank + 1) for rank in range(100)]
    for number in range(count):
        document = rng.choices(range(100), weights)[0]
        yield [100 * document + place for place in range(lengths[document])] + [100_000 + number]


def test_where_popularity_never_changes_it_is_as_good_as_counting_uses() -> None:
    prompts = list(documents(1, 1500))
    num_prompt_blocks = sum(map(len, prompts))
    assert hits(prompts, 800, PrefixAwareEviction) > hits(prompts, 800, LFUEviction) - 0.005 * num_prompt_blocks


def test_where_what_is_popular_changes_it_does_not_stick_to_counts() -> None:
    """First counting is best, and then it is worst: what was popular never comes back."""
    later = [[block + 1_000_000 for block in prompt] for prompt in documents(2, 800)]
    prompts = [*documents(1, 800), *later]
    assert hits(prompts, 800, PrefixAwareEviction) > 1.05 * hits(prompts, 800, LFUEviction)


BARS = [
    # Trace, blocks, the best of FIFO, LRU, LFU and SLRU, LRU, OPT.
    ("mooncake_conversation", 10000, 0.2085, 0.2085, 0.3456),
    ("mooncake_synthetic", 5000, 0.1145, 0.0858, 0.2979),
    ("mooncake_synthetic", 10000, 0.1999, 0.1726, 0.3293),
    ("agent_miniswe", 500, 0.1799, 0.1265, 0.3357),
    ("agent_miniswe", 1000, 0.3382, 0.2644, 0.5216),
    ("agent_miniswe", 2000, 0.6847, 0.5755, 0.7827),
    ("agent_magagent", 250, 0.1725, 0.0822, 0.3264),
    ("agent_magagent", 500, 0.2883, 0.2015, 0.5104),
    ("agent_magagent", 1000, 0.4925, 0.4791, 0.7395),
    ("agent_magagent", 2000, 0.8624, 0.8624, 0.8651),
]


def test_it_closes_half_of_the_distance_to_the_optimum_on_recorded_traces() -> None:
    if not TRACES.exists():
        pytest.skip(f"no recorded traces in {TRACES}")
    gained = distance = 0.0
    for trace, num_blocks, best, lru, optimum in BARS:
        prompts = [request.block_ids for request in read_trace(TRACES / f"{trace}_A.jsonl.gz").requests]
        found = replay_cache(
            prompts,
            num_blocks,
            lambda context: PrefixAwareEviction(options=None, context=context),
            eviction_name="prefix_aware",
        ).hit_rate
        assert found > best - 0.010, (trace, num_blocks)
        gained += found - lru
        distance += optimum - lru
    assert gained > 0.45 * distance
