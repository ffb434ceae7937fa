"""Both policies: vcore's contract, and the orders that are their own."""

from vcore.interfaces import EvictionContext, SchedulingContext
from vcore.testing import (
    EvictionPolicyContract,
    FakeRequest,
    NamedCache,
    SchedulingPolicyContract,
    SimulatedEngine,
)

from vcore_adaptive import plugin
from vcore_adaptive.eviction_policy import ARCEviction
from vcore_adaptive.options import AdaptiveLIFOOptions, ARCOptions
from vcore_adaptive.scheduling_policy import AdaptiveLIFO

TIGHT_LIFO = {"patience": 2, "standing_s": 3.0}
WITHOUT_PATIENCE = {"patience": None}
TIGHT_ARC = {"ghosts": 0.5}


class TestAdaptiveLIFO(SchedulingPolicyContract):
    policy = "adaptive_lifo"
    plugins = (plugin,)
    tight_options = TIGHT_LIFO


class TestAdaptiveLIFOWithoutPatience(SchedulingPolicyContract):
    policy = "adaptive_lifo"
    plugins = (plugin,)
    options = WITHOUT_PATIENCE
    states_a_bound = False


class TestARC(EvictionPolicyContract):
    policy = "arc"
    plugins = (plugin,)
    tight_options = TIGHT_ARC


# Adaptive LIFO


def engine_with(standing_s: float) -> SimulatedEngine:
    options = AdaptiveLIFOOptions(standing_s=standing_s, patience=None)
    return SimulatedEngine(
        make_policy=lambda context: AdaptiveLIFO(options=options, context=context),
        max_num_seqs=1,
        strict=True,
    )


def order_of(engine: SimulatedEngine) -> list[str]:
    """The requests in the order in which they began to run."""
    engine.run()
    return [new.request_id for step in engine.schedules for new in step.new_rows]


def test_while_the_queue_drains_it_goes_by_arrival() -> None:
    engine = engine_with(standing_s=1000.0)
    for _ in range(4):
        engine.add([1, 2, 3], 2)
    assert order_of(engine) == ["r0", "r1", "r2", "r3"]


def test_once_somebody_waited_too_long_the_newest_goes_first() -> None:
    engine = engine_with(standing_s=20.0)
    for _ in range(3):
        engine.add([1, 2, 3], 2)
    engine.step()
    engine.now += 30.0
    engine.add([1, 2, 3], 2)
    assert order_of(engine) == ["r0", "r3", "r2", "r1"]


def test_who_was_preempted_comes_before_all_others() -> None:
    context = SchedulingContext(
        max_num_seqs=4, max_num_batched_tokens=64, block_size=4, num_blocks=10
    )
    policy = AdaptiveLIFO(options=AdaptiveLIFOOptions(), context=context)
    back, new = FakeRequest(num_preemptions=1), FakeRequest()
    policy.on_waiting(new)
    policy.on_waiting(back)
    assert list(policy.walk(now=0.0)) == [back, new]


# ARC


def arc(num_blocks: int) -> NamedCache:
    def make(context: EvictionContext) -> ARCEviction:
        return ARCEviction(options=ARCOptions(), context=context)

    return NamedCache(make, num_blocks)


def test_what_was_used_once_goes_first_and_a_chain_from_its_tail() -> None:
    cache = arc(6)
    cache.visit("a")
    cache.visit("xyz")
    cache.visit("a")
    assert cache.order() == "zyxa"


def test_what_is_used_again_outlives_a_scan() -> None:
    cache = arc(3)
    cache.visit("a")
    cache.visit("a")
    for name in "bcdefgh":
        cache.visit(name)
    assert "a" in cache.cached()


def test_the_list_that_gave_up_too_soon_grows() -> None:
    cache = arc(4)
    for name in "aabbcde":
        cache.visit(name)
    assert cache.order() == "deab"
    cache.visit("c")  # it was given up as used once: that list gets a block
    assert cache.order() == "abce"
    cache.visit("f")
    cache.visit("a")  # and this one as used again: back it goes
    assert cache.order() == "fbca"
