"""What is counted, against the plainest way to count it."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcore.server.observability.instruments import Counter, FollowedCounter, Histogram, LabelledCounter

BOUNDS = (0.5, 1.0, 2.5)


@given(st.lists(st.floats(0, 5) | st.sampled_from(BOUNDS), max_size=80))
def test_one_by_one_or_at_once_a_histogram_counts_the_same(values: list[float]) -> None:
    one_by_one, at_once = Histogram(BOUNDS), Histogram(BOUNDS)
    for value in values:
        one_by_one.observe(value)
    at_once.observe_many(values)
    expected = [float(sum(value <= bound for value in values)) for bound in BOUNDS] + [float(len(values))]
    for histogram in (one_by_one, at_once):
        assert [count for _, count in histogram.cumulative()] == expected
        assert [name for name, _ in histogram.cumulative()] == ["0.5", "1.0", "2.5", "+Inf"]
        assert histogram.count == len(values)
        assert histogram.sum == pytest.approx(sum(values))


def test_a_value_on_a_bound_is_within_it() -> None:
    histogram = Histogram(BOUNDS)
    histogram.observe(1.0)
    assert dict(histogram.cumulative()) == {"0.5": 0, "1.0": 1, "2.5": 1, "+Inf": 1}
    assert bisect_left(BOUNDS, 1.0) == 1


def test_counters() -> None:
    counter, labelled = Counter(), LabelledCounter(known=[("a",)])
    counter.add(2)
    counter.add(3)
    labelled.add(("b",))
    labelled.add(("b",), 2)
    assert counter.value == 5
    assert labelled.values == {("a",): 0, ("b",): 3}


def test_a_followed_total_may_begin_again() -> None:
    counter = FollowedCounter()
    for total in (5, 5, 8, 2, 4):
        counter.follow(total)
    assert counter.value == 8 + 4


def test_a_total_that_was_restarted_may_have_outgrown_the_last_one() -> None:
    counter = FollowedCounter()
    counter.follow(5)
    counter.restart()
    counter.follow(7)
    assert counter.value == 12
