"""The vectorised filter never misses a request that the rule for one request ends."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vcore.engine.request import EngineRequest, FinishReason
from vcore.kv_cache import BlockHashChain, RequestBlocks
from vcore.sampling_params import SamplingParams
from vcore.scheduler.request import Request
from vcore.scheduler.stop_checker import StopChecker


def request(
    num_output: int = 1,
    last: int = 0,
    *,
    max_tokens: int = 5,
    min_tokens: int = 0,
    eos: tuple[int, ...] = (),
    stop: tuple[int, ...] = (),
) -> Request:
    """A request of two prompt tokens that has just got token `last`."""
    params = SamplingParams(max_tokens=max(max_tokens, min_tokens), min_tokens=min_tokens, stop_token_ids=stop)
    engine = EngineRequest(
        request_id="a",
        prompt_token_ids=[1, 2],
        params=params,
        max_tokens=max_tokens,
        arrival_time=0.0,
        eos_token_ids=eos,
    )
    made = Request(engine, 0, RequestBlocks(BlockHashChain(4), 0, [[]]))
    made.token_ids += [40] * (num_output - 1) + [last]
    return made


def candidates(requests: list[Request]) -> list[int]:
    checker = StopChecker(len(requests))
    for row, item in enumerate(requests):
        checker.set_row(row, item)
    return checker.candidates(
        np.arange(len(requests)),
        np.array([item.token_ids[-1] for item in requests], dtype=np.int64),
        np.array([len(item.token_ids) for item in requests], dtype=np.int64),
    )


def test_reasons() -> None:
    reason = StopChecker.reason
    assert reason(request(1, 9)) is None
    assert reason(request(5, 9)) == (FinishReason.LENGTH, None)
    assert reason(request(1, 9, eos=(8, 9))) == (FinishReason.STOP, None)
    assert reason(request(1, 9, stop=(9,))) == (FinishReason.STOP, 9)
    assert reason(request(1, 9, eos=(9,), stop=(9,))) == (FinishReason.STOP, None)
    assert reason(request(5, 9, eos=(9,))) == (FinishReason.STOP, None), "an end of sequence at the limit is a stop"
    assert reason(request(1, 9, eos=(9,), min_tokens=2)) is None
    assert reason(request(2, 9, eos=(9,), min_tokens=2)) == (FinishReason.STOP, None)
    assert reason(request(3, 9, max_tokens=3, min_tokens=4)) == (FinishReason.LENGTH, None), (
        "the model's length may cut max_tokens below min_tokens"
    )


def test_rows_that_go_on_are_not_candidates() -> None:
    assert candidates([request(1, 9, eos=(8,), stop=(7,)) for _ in range(3)]) == []


def test_many_stop_tokens_do_not_widen_the_test_for_all() -> None:
    wide = request(1, 55, stop=tuple(range(50, 90)))
    assert candidates([request(1, 9), wide, request(1, 9, eos=(9,))]) == [1, 2]
    checker = StopChecker(2)
    checker.set_row(0, wide)
    assert checker._stop_ids.shape == (2, 2)
    checker.set_row(0, request(1, 9))
    assert checker.candidates(np.array([0]), np.array([55]), np.array([3])) == [], "a new request has its own stops"


_requests = st.builds(
    request,
    num_output=st.integers(1, 6),
    last=st.integers(0, 12),
    max_tokens=st.integers(1, 6),
    min_tokens=st.integers(0, 6),
    eos=st.lists(st.integers(0, 12), max_size=3).map(tuple),
    stop=st.one_of(
        st.lists(st.integers(0, 12), max_size=4).map(tuple),
        st.lists(st.integers(0, 30), min_size=9, max_size=20).map(tuple),
    ),
)


@given(st.lists(_requests, min_size=1, max_size=6))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_nobody_who_ends_is_missed(requests: list[Request]) -> None:
    ending = {index for index, item in enumerate(requests) if StopChecker.reason(item) is not None}
    found = candidates(requests)
    assert ending <= set(found)
    assert found == sorted(set(found))
