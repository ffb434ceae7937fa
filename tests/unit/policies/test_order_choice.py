"""`ShadowCache` and `OrderChoice`: what small caches hold by an order, and which order wins."""

from __future__ import annotations

import random

from vcore_policies.eviction.order_choice import OrderChoice
from vcore_policies.eviction.shadow_cache import LastUse, ShadowCache


def chain(*names: str, since: int = 1, uses: int = 1) -> list[tuple[bytes, LastUse]]:
    return [(name.encode(), LastUse(since, uses, 0)) for name in names]


def by_uses(use: LastUse) -> float:
    return use.uses


def test_it_counts_what_was_there_and_keeps_the_largest_keys() -> None:
    cache = ShadowCache(by_uses)
    assert cache.use(chain("a", "b", since=1, uses=3)) == 0
    assert cache.use(chain("c", since=2, uses=1)) == 0
    assert cache.use(chain("d", since=3, uses=2)) == 0
    cache.shrink(3)
    assert cache.use(chain("a", "b", "d", since=4, uses=4)) == 3
    assert cache.use(chain("c", since=5)) == 0


def test_of_equal_keys_the_longest_unused_goes() -> None:
    cache = ShadowCache(by_uses)
    for since, name in enumerate("abc"):
        cache.use(chain(name, since=since))
    cache.use(chain("a", since=9))
    cache.shrink(2)
    assert cache.use(chain("a", "c", since=10)) == 2


def test_a_content_goes_after_all_that_follow_it() -> None:
    """The head is used least, and stays until both tails are gone."""
    cache = ShadowCache(lambda use: -use.uses)
    cache.use(chain("head", "left", uses=1))
    cache.use([*chain("head", uses=9), *chain("right", uses=1)])
    for size, held in ((2, 2), (1, 1), (0, 0)):
        cache.shrink(size)
        assert len(cache) == held
        if held:
            assert b"head" in cache._members


def test_keys_that_changed_count_when_it_is_ranked() -> None:
    worth = {1: 5.0, 2: 6.0}
    cache = ShadowCache(lambda use: worth[use.uses])
    cache.use(chain("a", uses=1))
    cache.use(chain("b", uses=2))
    cache.shrink(2)
    worth[2] = 1.0
    cache.rank()
    cache.shrink(1)
    assert cache.use(chain("a", uses=1)) == 1


def test_a_life_of_any_length_leaves_nothing_behind() -> None:
    cache = ShadowCache(by_uses)
    rng = random.Random(0)
    uses: dict[str, int] = {}
    for now in range(3000):
        name = str(min(rng.randrange(200), rng.randrange(200)))
        uses[name] = uses.get(name, 0) + 1
        cache.use(chain(name, name + "+", since=now, uses=uses[name]))
        cache.shrink(40)
        assert len(cache) <= 40
    assert len(cache) == 40
    assert len(cache._heap) <= 2 * 40 + 64 + 1


def serve(choice: OrderChoice, name: str, now: int, uses: int, size: int = 4) -> None:
    choice.use(chain(name, since=now, uses=uses))
    choice.shrink(size, 1)


def test_it_goes_by_uses_while_these_hit_more_and_by_worth_again_when_that_does() -> None:
    """Worth is recency here, in a cache of 4 contents: three that come back among many, then a loop."""
    choice = OrderChoice(4, lambda use: use.since)
    uses: dict[str, int] = {}
    now = 0

    def come(name: str) -> None:
        nonlocal now
        now += 1
        uses[name] = uses.get(name, 0) + 1
        serve(choice, name, now, uses[name])

    assert not choice.goes_by_uses
    for turn in range(60):
        for name in ("x", "y", "z"):
            come(name)
        for number in range(5):
            come(f"once {turn} {number}")
    assert choice.goes_by_uses
    for _ in range(200):
        for name in ("k", "l", "m"):
            come(name)
    assert not choice.goes_by_uses


def test_a_large_cache_is_shadowed_by_a_sample() -> None:
    choice = OrderChoice(100 * 1024, lambda use: use.since)
    sampled = sum(choice.samples(number.to_bytes(8, "little")) for number in range(100_000))
    assert 800 < sampled < 1200
    assert all(OrderChoice(500, lambda use: use.since).samples(bytes([number])) for number in range(100))
