"""Each policy's own order, against a few lines of plain Python that keep what is cached in a list."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence

import pytest
from pydantic import ValidationError
from vcore_policies.eviction.cost_aware import CostAwareEviction
from vcore_policies.eviction.fifo import FIFOEviction
from vcore_policies.eviction.lfu import LFUEviction
from vcore_policies.eviction.lru import LRUEviction
from vcore_policies.eviction.options import (
    CostAwareOptions,
    LFUOptions,
    PrefixAwareOptions,
    S3FIFOOptions,
    SLRUOptions,
    TTLPinnedOptions,
)
from vcore_policies.eviction.priority import PriorityEviction
from vcore_policies.eviction.s3fifo import S3FIFOEviction
from vcore_policies.eviction.slru import SLRUEviction
from vcore_policies.eviction.ttl import TTLPinnedEviction

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.simulate import CacheReplay
from vcore.testing.cost_meter import CostMeter

Prompts = list[list[int]]
BLOCK_SIZE = 16


def tree_prompts(seed: int, count: int = 150) -> Prompts:
    """Prompts that branch off one another, some again and again: an id stands for everything before it."""
    rng = random.Random(seed)
    ids: dict[tuple[int, int], int] = {}
    prompts: Prompts = []
    for _ in range(count):
        prompt, parent = [], -1
        for _ in range(rng.randint(1, 6)):
            parent = ids.setdefault((parent, min(rng.randrange(4), rng.randrange(4))), len(ids))
            prompt.append(parent)
        prompts.append(prompt)
    return prompts


def kept_by(policy: Callable[[EvictionContext], EvictionPolicy], num_blocks: int, prompts: Prompts) -> list[set[int]]:
    """What is cached after each request."""
    cache = CacheReplay(num_blocks, max(map(len, prompts)), policy, eviction_name="tested", block_size=BLOCK_SIZE)
    kept = []
    for prompt in prompts:
        cache.serve(prompt)
        kept.append(cache.cached_ids())
    return kept


def kept_by_keys(num_blocks: int, prompts: Prompts, key_of: Callable[..., tuple[float, ...]]) -> list[set[int]]:
    """The same, where what has the smallest key goes. Each use sets one, by time, depth, times of use, the key before,
    and whether the block was cached."""
    keys: dict[int, tuple[float, ...]] = {}
    uses: dict[int, list[int]] = defaultdict(list)
    cached: set[int] = set()
    kept = []
    for time, prompt in enumerate(prompts):
        for depth, block in enumerate(prompt):
            uses[block].append(time)
            keys[block] = key_of(time, depth, uses[block], keys.get(block), block in cached)
        cached |= set(prompt)
        cached = set(sorted(cached, key=keys.__getitem__)[max(0, len(cached) - num_blocks) :])
        kept.append(set(cached))
    return kept


def decayed(uses: Sequence[int], now: int, half_life: float) -> float:
    return math.fsum(2.0 ** ((use - now) / half_life) for use in uses)


@pytest.mark.parametrize("num_blocks", [1, 4, 12, 30])
@pytest.mark.parametrize("seed", [1, 2])
def test_orders_by_a_key_that_a_use_sets(num_blocks: int, seed: int) -> None:
    prompts = tree_prompts(seed)

    def lru(time, depth, uses, before, cached):  # type: ignore[no-untyped-def]
        return time, -depth

    def fifo(time, depth, uses, before, cached):  # type: ignore[no-untyped-def]
        return before if cached else (time, -depth)

    def lfu(time, depth, uses, before, cached):  # type: ignore[no-untyped-def]
        return len(uses), time, -depth

    def decaying(time, depth, uses, before, cached):  # type: ignore[no-untyped-def]
        # As a logarithm at one time for all: what decays equally long keeps its order.
        return round(math.log2(decayed(uses, time, 10.0)) + time / 10.0, 9), time, -depth

    policies: list[tuple[Callable[[EvictionContext], EvictionPolicy], Callable[..., tuple[float, ...]]]] = [
        (lambda context: LRUEviction(options=None, context=context), lru),
        (lambda context: FIFOEviction(options=None, context=context), fifo),
        (lambda context: LFUEviction(options=None, context=context), lfu),
        (lambda context: LFUEviction(options=LFUOptions(half_life=10.0), context=context), decaying),
    ]
    for policy, key_of in policies:
        assert kept_by(policy, num_blocks, prompts) == kept_by_keys(num_blocks, prompts, key_of), key_of.__name__


def test_lfu_forgets_counts_beyond_its_bound() -> None:
    def policy(context: EvictionContext) -> LFUEviction:
        return LFUEviction(options=LFUOptions(remembered=1), context=context)

    # 1 was used three times, but two others were forgotten after it.
    kept = kept_by(policy, 1, [[1], [1], [1], [2], [2], [2], [2], [3], [3], [3], [3], [3], [1]])
    assert kept[2] == {1}
    assert kept[6] == {2}
    assert kept[-1] == {3}, "with its count of three, 1 would still be less than 3"
    remembering = kept_by(lambda context: LFUEviction(options=None, context=context), 1, [[1], [1], [2], [2], [2], [1]])
    assert remembering[-1] == {1}, "three uses each, and the last counts"


@pytest.mark.parametrize("num_blocks", [1, 4, 12, 30])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_slru_keeps_two_lists(num_blocks: int, share: float) -> None:
    prompts = tree_prompts(3)
    probation: list[int] = []
    protected: list[int] = []
    limit = int(share * (num_blocks + max(map(len, prompts)) + 1))
    expected = []
    for prompt in prompts:
        again = [block for block in prompt if block in probation or block in protected]
        new = [block for block in prompt if block not in again]
        probation = [block for block in probation if block not in prompt]
        protected = [block for block in protected if block not in prompt]
        protected += again[::-1]
        probation += new[::-1]
        while len(protected) > limit:
            probation.append(protected.pop(0))
        excess = len(probation) + len(protected) - num_blocks
        if excess > 0:
            both = (probation + protected)[excess:]
            probation = [block for block in both if block in probation]
            protected = [block for block in both if block in protected]
            limit = int(share * len(both))
        while len(protected) > limit:
            probation.append(protected.pop(0))
        expected.append(set(probation + protected))
    options = SLRUOptions(protected=share)
    assert kept_by(lambda context: SLRUEviction(options=options, context=context), num_blocks, prompts) == expected


def naive_s3fifo(num_blocks: int, prompts: Prompts, share: float, num_ghosts: int) -> list[set[int]]:
    """Algorithm 1 of the paper with lists, one eviction after another."""
    small: list[int] = []
    main: list[int] = []
    ghosts: list[int] = []
    uses: dict[int, int] = {}
    kept = []
    for prompt in prompts:
        new = [block for block in prompt if block not in small and block not in main]
        for block in prompt:
            uses[block] = 0 if block in new else min(3, uses[block] + 1)
        for block in new[::-1]:
            (main if block in ghosts else small).append(block)
        while len(small) + len(main) > num_blocks:
            if small and (len(small) > share * (len(small) + len(main)) or not main):
                block = small.pop(0)
                if uses[block]:
                    uses[block] = 0
                    main.append(block)
                else:
                    ghosts = [*[ghost for ghost in ghosts if ghost != block], block][-num_ghosts:]
            else:
                block = main.pop(0)
                if uses[block]:
                    uses[block] -= 1
                    main.append(block)
        kept.append(set(small + main))
    return kept


@pytest.mark.parametrize("num_blocks", [1, 4, 12, 30])
@pytest.mark.parametrize("share", [0.1, 0.4])
def test_s3fifo_keeps_three_queues(num_blocks: int, share: float) -> None:
    prompts = tree_prompts(4)
    options = S3FIFOOptions(small=share)
    found = kept_by(lambda context: S3FIFOEviction(options=options, context=context), num_blocks, prompts)
    assert found == naive_s3fifo(num_blocks, prompts, share, num_blocks + max(map(len, prompts)) + 1)


class Names:
    """A view that knows contents alone."""

    def content(self, block_id: int) -> bytes:
        return block_id.to_bytes(8, "little")


def s3fifo(num_blocks: int, share: float = 0.1) -> S3FIFOEviction:
    context = EvictionContext(view=Names(), num_blocks=num_blocks, block_size=16)  # type: ignore[arg-type]
    return S3FIFOEviction(options=S3FIFOOptions(small=share), context=context)


class NaiveS3FIFO:
    """The queues as lists, with users that come and go; a block in use that is met goes round when it is free."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.small: list[int] = []
        self.main: list[int] = []
        self.away: set[int] = set()
        self.ghosts: set[int] = set()
        self.uses: dict[int, int] = {}
        self.used: set[int] = set()

    def free(self, block: int) -> None:
        self.used.discard(block)
        if block in self.away:
            self.away.remove(block)
            self.main.append(block)
        elif block not in self.small + self.main:
            (self.main if block in self.ghosts else self.small).append(block)

    def evict(self) -> int:
        while True:
            count = len(self.small) + len(self.main) + len(self.away)
            if self.small and (len(self.small) > self.share * count or not set(self.main) - self.used):
                block = self.small.pop(0)
                if block not in self.used and not self.uses[block]:
                    self.ghosts.add(block)
                    return block
                self.uses[block] = 0
            else:
                block = self.main.pop(0)
                if block not in self.used and not self.uses[block]:
                    return block
                self.uses[block] -= block not in self.used
            if block in self.used:
                self.away.add(block)
            else:
                self.main.append(block)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_s3fifo_passes_what_is_in_use(share: float) -> None:
    rng = random.Random(2)
    policy, naive = s3fifo(41, share), NaiveS3FIFO(share)
    num_evicted = 0
    for _ in range(3000):
        new = sorted(set(range(1, 41)) - set(naive.uses))
        free = sorted(set(naive.uses) - naive.used)
        turn = rng.random()
        if turn < 0.3 and new:
            block = rng.choice(new)
            naive.uses[block] = 0
            naive.used.add(block)
            policy.on_insert([block])
        elif turn < 0.55 and naive.uses:
            block = rng.choice(sorted(naive.uses))
            naive.uses[block] = min(3, naive.uses[block] + 1)
            naive.used.add(block)
            policy.on_hit([block])
        elif turn < 0.8 and naive.used:
            block = rng.choice(sorted(naive.used))
            naive.free(block)
            policy.on_free([block])
        elif free:
            picked = policy.pick_victims(1)
            assert picked == [naive.evict()]
            del naive.uses[picked[0]]
            policy.on_evict(picked)
            num_evicted += 1
    assert num_evicted > 300


def test_s3fifo_looks_no_longer_where_more_is_in_use() -> None:
    def cost(num_used: int) -> float:
        policy = s3fifo(num_used + 101)
        blocks = list(range(1, num_used + 101))
        policy.on_insert(blocks)
        policy.on_free(blocks)
        for _ in range(3):  # used so often that all are in the main queue once the first goes
            policy.on_hit(blocks)
            policy.on_free(blocks)
        policy.on_evict(policy.pick_victims(1))
        policy.on_hit(blocks[1:num_used])
        policy.on_evict(policy.pick_victims(1))
        meter = CostMeter(policy, ["on_evict", "pick_victims"])
        for _ in range(40):
            with meter.watch():
                policy.on_evict(policy.pick_victims(1))
        return meter.instructions

    assert cost(1600) < 2 * cost(100) + 500


@pytest.mark.parametrize("num_blocks", [1, 4, 12])
@pytest.mark.parametrize("balance", [16, 1000])
def test_cost_aware_is_greedy_dual_from_the_leaves(num_blocks: int, balance: int) -> None:
    prompts = tree_prompts(6)
    parents = {block: parent for prompt in prompts for parent, block in zip([None, *prompt], prompt, strict=False)}
    worth: dict[int, float] = {}
    order: dict[int, tuple[int, int]] = {}
    level = 0.0
    expected = []
    for time, prompt in enumerate(prompts):
        for depth, block in enumerate(prompt):
            worth[block] = level + 1.0 + depth * (BLOCK_SIZE / balance)
            order[block] = (time, -depth)
        risen = level
        while len(worth) > num_blocks:
            leaves = [block for block in worth if block not in {parents[other] for other in worth}]
            victim = min(leaves, key=lambda block: (worth[block], order[block]))
            risen = max(risen, worth.pop(victim))
        level = risen
        expected.append(set(worth))
    options = CostAwareOptions(balance=balance)
    assert kept_by(lambda context: CostAwareEviction(options=options, context=context), num_blocks, prompts) == expected


def test_priority_gives_up_the_least_urgent_however_old_the_others_are() -> None:
    cache = CacheReplay(4, 2, lambda context: PriorityEviction(options=None, context=context), eviction_name="tested")
    cache.serve([1, 2], priority=-1)
    cache.serve([3, 4], priority=5)
    cache.serve([5, 6], priority=0)
    assert cache.serve([1, 2], priority=-1) == 2
    assert cache.serve([3, 4], priority=0) == 0
    assert cache.serve([5, 6], priority=0) == 0, "of two that are equal the older went"


class Clock:
    """A time that tests set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def pinning(clock: Clock, num_blocks: int, most_pinned: int) -> CacheReplay:
    def policy(context: EvictionContext) -> TTLPinnedEviction:
        context = EvictionContext(view=context.view, num_blocks=10, block_size=16, clock=clock)
        return TTLPinnedEviction(options=TTLPinnedOptions(most_pinned=most_pinned / 10), context=context)

    return CacheReplay(num_blocks, 4, policy, eviction_name="tested")


def test_what_is_pinned_stays_until_its_time_is_over_and_a_use_renews_it() -> None:
    clock = Clock()
    cache = pinning(clock, 4, most_pinned=2)
    cache.serve([1, 2], ttl=10.0)
    for block in range(10, 20):
        cache.serve([block])
    assert cache.serve([1, 2]) == 2, "renewed, though this request asks for nothing"
    clock.now = 9.0
    for block in range(20, 30):
        cache.serve([block])
    assert cache.serve([1, 2]) == 2
    clock.now = 25.0
    cache.serve([30, 31, 32])
    assert cache.serve([1, 2]) == 1, "its time is over: the tail went"


def test_of_pins_the_first_to_expire_goes_first_and_an_expired_one_is_as_old_as_its_end() -> None:
    clock = Clock()
    cache = pinning(clock, 3, most_pinned=9)
    cache.serve([1], ttl=10.0)
    cache.serve([2], ttl=5.0)
    clock.now = 1.0
    cache.serve([3])
    cache.serve([4])
    assert cache.cached_ids() == {1, 2, 4}
    clock.now = 7.0
    cache.serve([5])
    assert cache.cached_ids() == {1, 2, 5}, "4 was last used before 2 expired"
    cache.serve([6])
    assert cache.cached_ids() == {1, 5, 6}, "5 was last used after"
    clock.now = 8.0
    cache.serve([7], ttl=1.0)
    cache.serve([8], ttl=5.0)
    assert cache.cached_ids() == {1, 7, 8}
    cache.serve([8], ttl=9.0)
    cache.serve([9], ttl=9.0)
    assert cache.cached_ids() == {1, 8, 9}


def test_only_a_share_can_be_pinned_and_of_a_chain_its_head() -> None:
    clock = Clock()
    cache = pinning(clock, 4, most_pinned=2)
    cache.serve([1, 2, 3, 4], ttl=1000.0)
    cache.serve([5, 6])
    cache.serve([7, 8])
    assert cache.serve([1, 2, 3, 4]) == 2
    clock.now = 5000.0
    cache.serve([11, 12, 13, 14])
    cache.serve([15, 16], ttl=1.0)
    assert cache.serve([15, 16]) == 2, "expired pins leave their room to others"


@pytest.mark.parametrize(
    ("model", "wrong"),
    [
        (LFUOptions, {"half_life": 0}),
        (LFUOptions, {"remembered": -1}),
        (SLRUOptions, {"protected": 1.0}),
        (S3FIFOOptions, {"small": 0.0}),
        (TTLPinnedOptions, {"most_pinned": 1.5}),
        (CostAwareOptions, {"balance": 0}),
        (PrefixAwareOptions, {"ghosts": 0}),
        (PrefixAwareOptions, {"half_life": 0}),
        (PrefixAwareOptions, {"ghost": 4}),
    ],
)
def test_options_are_checked(model: type[LFUOptions], wrong: dict[str, float]) -> None:
    model()
    with pytest.raises(ValidationError):
        model.model_validate(wrong)
