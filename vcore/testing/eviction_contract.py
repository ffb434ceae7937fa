"""`EvictionPolicyContract`: what every eviction policy must pass, as tests that a class inherits.

    class TestARC(EvictionPolicyContract):
        policy = "arc"

Each class is one case: the policy of that name, as an engine finds it, in the real KV cache, where any wrong answer
raises. Needs pytest.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.kv_cache import KVCacheManager, RequestBlocks
from vcore.plugins import PluginKind
from vcore.simulate.cache_replay import CacheReplay
from vcore.testing.cost_meter import CostMeter
from vcore.testing.kept import count_kept
from vcore.testing.policy_case import PolicyCase

__all__ = ["CacheLife", "EvictionPolicyContract"]

Create = Callable[..., EvictionPolicy]

BLOCK_SIZE = 2
_CALLS = ("on_insert", "on_hit", "on_free", "on_evict", "pick_victims")
_NUM_LIVES = 40
_FEW, _MANY = 96, 1536


class CacheLife:
    """A cache in strict mode, whose policy is asked after each event whether it would answer rightly."""

    def __init__(
        self, create: Create, num_blocks: int, windows: Sequence[int | None] = (None,), **options: Any
    ) -> None:
        """An empty cache.

        Args:
            create: makes the policy.
            num_blocks: blocks, the null block among them.
            windows: of each group of layers.
            options: of the policy.
        """
        self.now = 0.0
        """Seconds, by the policy's clock."""
        self.live: list[tuple[RequestBlocks, list[int]]] = []
        """Requests that run, and their tokens."""

        def make(context: EvictionContext) -> EvictionPolicy:
            context = dataclasses.replace(context, clock=lambda: self.now)
            self.policy = create(context, **options)
            return self.policy

        self.kv = KVCacheManager(
            num_blocks, BLOCK_SIZE, make, eviction_name="under test", windows=tuple(windows), strict=True
        )
        self.pool = self.kv.pool

    def come(self, tokens: list[int], priority: int = 0, ttl: float | None = None) -> RequestBlocks | None:
        """A request computes its tokens in one step and goes on running; None if it finds no room."""
        blocks = self.kv.open((), priority, ttl)
        match = self.kv.find_prefix(blocks, tokens)
        count = self.kv.needs.num_columns(len(tokens)) - match.num_columns
        if count * self.kv.num_groups + sum(match.num_unused) > self.pool.num_available:
            return None
        self.kv.admit(blocks, match, count)
        self.kv.publish(blocks, tokens, len(tokens))
        self.kv.end_step()
        self.live.append((blocks, tokens))
        return blocks

    def go(self, index: int = -1, *, finished: bool = True) -> None:
        """A running request ends, or is preempted."""
        self.kv.release(self.live.pop(index)[0], finished=finished)

    def pass_window(self, index: int) -> None:
        """A running request gives up what its windows have passed."""
        blocks, tokens = self.live[index]
        if self.kv.windows:
            self.pool.release([block_id for _, _, block_id in self.kv.take_passed(blocks, len(tokens))])

    def start_over(self) -> None:
        """The cache is reset, and all requests end."""
        self.kv.reset()
        while self.live:
            self.go(finished=False)

    def check(self) -> None:
        """Every number that may be asked for gives so many different unused blocks, and asking changes nothing."""
        unused = {block_id for block_id in self.pool.cached_blocks() if not self.pool.ref_counts[block_id]}
        for count in sorted({0, 1, len(unused) // 2, len(unused)}):
            if count > len(unused):
                continue
            picked = list(self.policy.pick_victims(count))
            assert len(picked) == len(set(picked)) == count, f"pick_victims({count}) of {len(unused)} gave {picked}"
            assert set(picked) <= unused, f"{set(picked) - unused} are in use, or not cached"
            assert list(self.policy.pick_victims(count)) == picked, "asked twice, it picks others"


class EvictionPolicyContract(PolicyCase):
    """One case. Subclass it in a test module, under a name that begins with ``Test``."""

    kind = PluginKind.EVICTION_POLICY

    def test_an_empty_cache_needs_no_victims(self, create: Create) -> None:
        """None are asked for."""
        assert list(CacheLife(create, 4).policy.pick_victims(0)) == []

    @pytest.mark.parametrize("windows", [(None,), (None, 2)], ids=["one group", "with a window"])
    def test_every_life_gives_only_right_answers(self, create: Create, windows: tuple[int | None, ...]) -> None:
        """Requests come, share, fail and go, time passes, the cache is reset; with `tight_options`, too."""
        for seed in range(_NUM_LIVES):
            options = self.tight_options if seed % 2 else {}
            try:
                self._live(CacheLife(create, 14, windows, **options), random.Random(seed))
            except AssertionError as error:
                error.add_note(f"in the random life of seed {seed}")
                raise

    def test_a_block_in_use_is_never_picked_however_much_is_needed(self, create: Create) -> None:
        """What a request uses stays, and can be hit."""
        life = CacheLife(create, 8)
        kept = life.come([1, 1, 1, 1])
        assert kept is not None
        assert life.come([2, 2, 2, 2, 2, 2]) is not None
        life.go()
        taken = life.pool.allocate(5)
        assert taken is not None
        assert not set(taken) & set(kept.block_ids[0])
        assert life.kv.find_prefix(life.kv.open((), 0), [1, 1, 1, 1, 0]).block_ids == kept.block_ids

    def test_withdrawn_blocks_are_forgotten(self, create: Create) -> None:
        """Their ids come back as blocks of other content."""
        life = CacheLife(create, 8)
        blocks = life.come([1, 1, 1, 1])
        assert blocks is not None
        ids = blocks.held()
        life.go(finished=False)
        life.pool.uncache(ids)
        running = life.come([2] * 8)
        assert running is not None
        assert set(ids) <= set(running.held())
        assert life.come([3] * 4) is not None
        life.go(finished=False)
        life.check()

    def test_it_starts_afresh_with_every_engine(self, create: Create) -> None:
        """No state in the class or the module."""
        first, second = CacheLife(create, 8), CacheLife(create, 8)
        assert first.come([1, 1, 1, 1]) is not None
        first.go()
        assert list(second.policy.pick_victims(0)) == []
        assert second.policy is not first.policy
        assert second.come([2, 2]) is not None
        second.go()
        second.check()

    def test_what_it_remembers_has_an_end(self, create: Create) -> None:
        """Of blocks that are gone, and of contents that never come again; with `tight_options`."""
        life = CacheLife(create, 12, **self.tight_options)
        kept = []
        for count in (600, 600):
            for _ in range(count):
                self._content = getattr(self, "_content", 0) + 1
                assert life.come([self._content] * 8) is not None
                life.go(finished=self._content % 2 == 0)
                if self._content % 50 == 0:
                    life.start_over()
            kept.append(count_kept(life.policy))
        assert kept[1] - kept[0] < 300, f"it holds {kept[1] - kept[0]} references more after 2,400 blocks more"

    def test_an_event_costs_no_more_in_a_larger_cache(self, create: Create) -> None:
        """An event's work and memory grow with the logarithm of the number of blocks at most."""
        few, many = self._event_cost(create, _FEW), self._event_cost(create, _MANY)
        for what, less, more in zip(("instructions", "bytes"), few, many, strict=True):
            assert more <= 3 * less + 500, (
                f"a request takes {less:.0f} {what} in a cache of {_FEW} blocks and {more:.0f} in one of {_MANY}; "
                "keep blocks in order, instead of looking at all of them"
            )

    def test_an_event_costs_no_more_where_more_is_in_use(self, create: Create) -> None:
        """However often what is in use was used: it is not met time and again on the way to what can go."""
        few, many = self._cost_beside(create, _FEW), self._cost_beside(create, _MANY)
        for what, less, more in zip(("instructions", "bytes"), few, many, strict=True):
            assert more <= 3 * less + 500, (
                f"a request takes {less:.0f} {what} beside {_FEW} blocks in use and {more:.0f} beside {_MANY}; keep "
                "blocks in use out of the order, or pass each but once until it is free"
            )

    def _live(self, life: CacheLife, rng: random.Random) -> None:
        for _ in range(60):
            turn = rng.random()
            if turn < 0.5:
                tokens = [rng.randrange(2) for _ in range(rng.randint(1, 11))]
                life.come(tokens, rng.randint(-1, 1), rng.choice([None, rng.uniform(0.5, 20.0)]))
            elif turn < 0.55:
                life.now += rng.uniform(0.0, 10.0)
            elif turn < 0.57:
                life.start_over()
            elif life.live:
                index = rng.randrange(len(life.live))
                if turn < 0.85:
                    life.go(index, finished=rng.random() < 0.5)
                elif turn < 0.95:
                    life.pass_window(index)
                else:
                    life.kv.forget(life.live[index][0])
            life.check()

    def _event_cost(self, create: Create, num_blocks: int) -> tuple[float, float]:
        """Instructions and bytes of a request, whose blocks are half shared, in a cache that is full."""
        rng = random.Random(5)
        made: list[EvictionPolicy] = []

        def make(context: EvictionContext) -> EvictionPolicy:
            made.append(create(context))
            return made[0]

        cache = CacheReplay(num_blocks, 8, make, eviction_name="under test")
        own = 4 * num_blocks

        def serve() -> None:
            nonlocal own
            own += 4
            first = 4 * min(rng.randrange(num_blocks // 4), rng.randrange(num_blocks // 4))
            cache.serve([*range(first, first + 4), *range(own, own + 4)], priority=rng.randrange(3))

        for _ in range(num_blocks // 2):
            serve()
        meter = CostMeter(made[0], _CALLS)
        for _ in range(60):
            with meter.watch():
                serve()
        return meter.instructions, meter.num_bytes

    def _cost_beside(self, create: Create, num_used: int) -> tuple[float, float]:
        """Instructions and bytes of a prompt that comes twice, with little room beside others that run for long."""
        size = 4  # full blocks of a prompt; it has a partial one beside
        num_others = num_used // size
        life = CacheLife(create, (size + 1) * num_others + 8 * size)

        def come(number: int, times: int) -> None:
            for _ in range(times):
                assert life.come([number, *range(2 * size)]) is not None
                life.go()

        for number in range(num_others):
            come(number, 3)
        for number in range(num_others):
            assert life.come([number, *range(2 * size)]) is not None
        for number in range(num_others, num_others + 16):  # until the rest is full, too
            come(number, 2)
        meter = CostMeter(life.policy, _CALLS)
        for number in range(num_others + 16, num_others + 56):
            with meter.watch():
                come(number, 2)
        return meter.instructions, meter.num_bytes
