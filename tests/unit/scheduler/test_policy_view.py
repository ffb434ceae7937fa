"""What a policy sees of a request."""

from __future__ import annotations

import pytest
from simulated_engine import SimulatedEngine

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.interfaces.scheduling import RequestView, SchedulingPolicy
from vcore.testing.simulated_engine import LongestUnused


class Watching(SchedulingPolicy):
    def __init__(self) -> None:
        self.seen: list[RequestView] = []

    def waiting_key(self, request: RequestView) -> int:
        self.seen.append(request)
        return request.arrival_index


def watched(**settings: object) -> tuple[SimulatedEngine, Watching]:
    policy = Watching()
    return SimulatedEngine(policy=policy, strict=True, **settings), policy  # type: ignore[arg-type]


def test_what_a_request_says_of_itself_is_seen() -> None:
    engine, policy = watched()
    said = {"tenant": "a", "ttft_target_s": 2.5, "itl_target_s": 0.1, "expected_tokens": 7, "priority": -4}
    engine.add([1, 2, 3], 20, **said)
    assert {name: getattr(policy.seen[0], name) for name in said} == said


def test_what_it_does_not_say_is_none() -> None:
    engine, policy = watched()
    engine.add([1, 2, 3], 20)
    names = ("tenant", "ttft_target_s", "itl_target_s", "expected_tokens")
    assert [getattr(policy.seen[0], name) for name in names] == [None] * 4
    assert policy.seen[0].priority == 0


def test_no_more_is_expected_than_may_come() -> None:
    engine, policy = watched()
    engine.add([1], 5, expected_tokens=500)
    assert policy.seen[0].expected_tokens == 5


def test_prefixes_are_seen_as_hashes_that_grow_with_the_tokens() -> None:
    engine, policy = watched(block_size=4)
    engine.add([1, 2, 3, 4, 5, 6, 7, 8, 9], 8)
    engine.add([1, 2, 3, 4, 5, 6, 7, 7, 9], 8)
    engine.add([1, 2, 3, 4, 5, 6, 7, 8, 9], 8, extra_keys=("salt",))
    one, other, salted = policy.seen
    assert len(one.prefix_hashes()) == 2
    assert one.prefix_hashes()[0] == other.prefix_hashes()[0]
    assert one.prefix_hashes()[1] != other.prefix_hashes()[1]
    assert not set(one.prefix_hashes()) & set(salted.prefix_hashes())
    first = list(one.prefix_hashes())
    for _ in range(5):
        engine.step()
    assert list(one.prefix_hashes())[:2] == first
    assert len(one.prefix_hashes()) == one.num_tokens // 4 > 2
    with pytest.raises((AttributeError, TypeError)):
        one.prefix_hashes().clear()  # type: ignore[attr-defined]


def test_without_a_prefix_cache_there_are_no_hashes_and_no_hits() -> None:
    engine, policy = watched(prefix_caching=False)
    engine.add([1] * 20, 8)
    assert list(policy.seen[0].prefix_hashes()) == []
    assert policy.seen[0].num_cached_tokens() == 0


@pytest.mark.parametrize("windows", [(None,), (6,), (None, 6), (3, 9)])
def test_what_is_cached_is_what_would_be_hit(windows: tuple[int | None, ...]) -> None:
    engine, policy = watched(windows=windows, block_size=2, max_num_seqs=1, num_blocks=600)
    prompts = [[1] * 11, [1] * 7 + [2] * 9, [1] * 20, [3], [1] * 2]
    for prompt in prompts:
        name = engine.add(prompt, 3)
        engine.step()
        engine.run()
        engine.add(prompt, 3, request_id=f"{name} again")
        cached = policy.seen[-1].num_cached_tokens()
        assert cached == policy.seen[-1].num_cached_tokens()
        engine.run()
        assert engine.cached[f"{name} again"] == cached


def test_an_eviction_policy_goes_by_the_clock_of_the_scheduler() -> None:
    made: list[EvictionContext] = []

    def make(context: EvictionContext) -> EvictionPolicy:
        made.append(context)
        return LongestUnused()

    engine = SimulatedEngine(make_eviction=make)
    engine.now = 1e9
    assert [context.clock() for context in made] == [1e9 + 1]
