"""The blocks that decode rows share, as the scheduler tells them. `FakeWorker` checks each count by its own tables."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_engine import SimulatedEngine

from vcore.scheduler.shared_prefix import _num_common

PREFIX = list(range(12))  # three blocks of four tokens


def told(engine: SimulatedEngine) -> list[int]:
    """Of each step of two decode rows or more, the count."""
    return [output.num_shared_blocks for output in engine.schedules if output.num_decodes > 1]


def test_requests_with_a_common_prefix_share_its_blocks() -> None:
    engine = SimulatedEngine()
    for own in range(4):
        engine.add([*PREFIX, 40 + own])
    engine.run()
    assert set(told(engine)) == {3}


def test_one_request_shares_with_nobody() -> None:
    engine = SimulatedEngine()
    engine.add(PREFIX)
    engine.run()
    assert {output.num_shared_blocks for output in engine.schedules} == {0}


def test_a_stranger_in_the_batch_ends_it_until_it_leaves() -> None:
    engine = SimulatedEngine()
    engine.add([*PREFIX, 41], 20)
    engine.add([*PREFIX, 42], 20)
    engine.add([30] * 13, 5)
    engine.run()
    counts = told(engine)
    assert sorted(set(counts)) == [0, 3]
    assert counts[-1] == 3


def test_the_count_goes_on_when_those_who_came_first_leave() -> None:
    engine = SimulatedEngine()
    for own in range(6):
        engine.add([*PREFIX, 40 + own], 4 + 3 * own)
    engine.run()
    assert set(told(engine)) == {3}


def test_it_grows_when_those_who_share_less_leave() -> None:
    engine = SimulatedEngine()
    engine.add([*PREFIX, 41], 3)
    for _ in range(3):
        engine.add([*PREFIX, *[7] * 8, 42], 12)
    engine.run()
    assert set(told(engine)) == {3, 5}


def test_output_that_another_request_begins_with_is_shared_too() -> None:
    engine = SimulatedEngine()
    name = engine.add(PREFIX, 30)
    for _ in range(10):
        engine.step()
    engine.add([*PREFIX, *engine.outputs[name], 49], 20)
    engine.run()
    assert max(told(engine)) == 5


def test_blocks_that_the_others_are_compared_with_may_be_shared_as_they_are_filled() -> None:
    engine = SimulatedEngine()
    engine.add([30] * 5, 14)
    name = engine.add(PREFIX, 30)
    for _ in range(10):
        engine.step()
    engine.add([*PREFIX, *engine.outputs[name], 49], 20)
    engine.run()
    assert told(engine)[-1] == 5


def test_a_row_changes_hands_from_one_step_to_the_next() -> None:
    engine = SimulatedEngine(max_num_seqs=4)
    longer = [*PREFIX, *[7] * 8]
    for max_tokens in (30, 31, 32):
        engine.add([*longer, 42], max_tokens)
    engine.step()
    engine.add([*PREFIX, 41], 6)  # the last to come, with which the others are compared
    engine.step()
    engine.add([*longer, 43], 8)  # takes its row, and computes one token in its first step
    engine.run()
    of_four = [output.num_shared_blocks for output in engine.schedules if output.num_decodes == 4]
    assert of_four == [3] * 6 + [5] * 8


def test_nothing_is_shared_without_prefix_caching() -> None:
    engine = SimulatedEngine(prefix_caching=False)
    for own in range(3):
        engine.add([*PREFIX, 40 + own])
    engine.run()
    assert set(told(engine)) == {0}


def test_groups_with_a_window_are_left_out() -> None:
    for windows, expected in (((None, 6), 3), ((6,), 0), ((None, None), 3)):
        engine = SimulatedEngine(windows=windows, num_blocks=400)
        for own in range(3):
            engine.add([*PREFIX, 40 + own])
        engine.run()
        assert set(told(engine)) == {expected}, windows


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 3, 4, 8, 12]), st.integers(1, 9), st.integers(0, 3), st.integers(1, 25)),
        min_size=2,
        max_size=14,
    ),
    st.integers(1, 2),
    st.sampled_from([200, 30]),
    st.sampled_from([64, 7]),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 13)), max_size=5),
)
def test_each_count_is_a_common_prefix_and_the_longest(
    requests: list[tuple[int, int, int, int]], depth: int, num_blocks: int, budget: int, aborts: list[tuple[int, int]]
) -> None:
    """With preemption (few blocks), small budgets, steps in flight, and requests that come and go at any time."""
    engine = SimulatedEngine(depth=depth, num_blocks=num_blocks, max_num_batched_tokens=budget)
    names: list[str] = []
    for turn in range(200):
        if turn % 2 == 0 and turn // 2 < len(requests):
            shared, own, kind, max_tokens = requests[turn // 2]
            names.append(engine.add([*PREFIX[:shared], *[kind] * own], max_tokens))
        engine.scheduler.abort([names[index] for when, index in aborts if when == turn and index < len(names)])
        engine.step()
    engine.run()
    engine.check_outputs()


@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), max_size=6), st.integers(0, 40))
def test_leading_elements_are_counted(first: list[int], tail: list[int], keep: int) -> None:
    second = [*first[:keep], *tail]
    expected = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    assert _num_common(first, second) == (min(len(first), len(second)) if expected is None else expected)
