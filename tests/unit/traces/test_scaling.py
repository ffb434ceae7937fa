"""Scaled and cut traces keep what matters: ids, the number of blocks, and limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcore.errors import ConfigError
from vcore.traces import Trace, TraceRequest, cut_lengths, scale_lengths, scale_times

lengths = st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 500)), min_size=1, max_size=8)


def trace(pairs: list[tuple[int, int]], block_size: int | None = 512) -> Trace:
    requests = tuple(
        TraceRequest(
            arrival_s=2.0 * index,
            input_length=input_length,
            output_length=output_length,
            block_ids=tuple(range(-(-input_length // block_size))) if block_size else (),
        )
        for index, (input_length, output_length) in enumerate(pairs)
    )
    return Trace("t", "mooncake", requests, block_size)


@given(lengths, st.sampled_from([1 / 32, 1 / 7, 0.5, 1.0, 1.3, 4.0]))
def test_scaled_prompts_have_as_many_blocks_as_before(pairs: list[tuple[int, int]], factor: float) -> None:
    before = trace(pairs)
    after = scale_lengths(before, factor)
    assert after.block_size == round(512 * factor)
    for old, new in zip(before.requests, after.requests, strict=True):
        assert new.block_ids == old.block_ids
        assert len(new.block_ids) == -(-new.input_length // after.block_size)
        assert new.output_length >= max(1, old.output_length * factor)


def test_lengths_without_blocks_are_scaled_and_rounded_up() -> None:
    after = scale_lengths(trace([(10, 3)], None), 0.25)
    assert (after.requests[0].input_length, after.requests[0].output_length) == (3, 1)


def test_a_block_keeps_a_token() -> None:
    with pytest.raises(ConfigError, match=r"0.0001 of a block of 512 tokens is none"):
        scale_lengths(trace([(10, 1)]), 0.0001)


@given(lengths, st.integers(2, 4000))
def test_no_request_is_longer_than_the_limit(pairs: list[tuple[int, int]], limit: int) -> None:
    before = trace(pairs)
    after, num_cut = cut_lengths(before, limit)
    fitting = [one.input_length + one.output_length <= limit for one in before.requests]
    assert num_cut == fitting.count(False)
    for old, new, fits in zip(before.requests, after.requests, fitting, strict=True):
        assert new is old if fits else new.input_length + new.output_length == limit
        assert new.input_length >= 1
        assert new.output_length == min(old.output_length, limit - 1)
        assert new.block_ids == old.block_ids[: -(-new.input_length // 512)]


def test_a_limit_holds_a_prompt_and_an_output() -> None:
    with pytest.raises(ConfigError, match="needs 2 tokens or more"):
        cut_lengths(trace([(1, 1)]), 1)


def test_the_pace_is_changed() -> None:
    faster = scale_times(trace([(1, 1)] * 5), 2.0)
    assert [one.arrival_s for one in faster.requests] == pytest.approx([0, 0.5, 1.0, 1.5, 2.0])
    with pytest.raises(ConfigError, match="all requests arrive at once"):
        scale_times(trace([(1, 1)]), 2.0)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_pace_is_above_zero(rate: float) -> None:
    with pytest.raises(ConfigError, match="expected a number above 0"):
        scale_times(trace([(1, 1)] * 2), rate)


def test_a_pace_so_slow_that_times_overflow_is_refused() -> None:
    with pytest.raises(ConfigError, match="the last one never arrives"):
        scale_times(trace([(1, 1)] * 5), 1e-320)
    assert {one.arrival_s for one in scale_times(trace([(1, 1)] * 5), float("inf")).requests} == {0.0}


@pytest.mark.parametrize("block_size", [None, 512])
@pytest.mark.parametrize("factor", [1e308, float("nan"), -1.0])
def test_lengths_beyond_all_measure_are_refused(block_size: int | None, factor: float) -> None:
    with pytest.raises(ConfigError, match="times its lengths"):
        scale_lengths(trace([(1000, 1)], block_size), factor)
