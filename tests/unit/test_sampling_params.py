"""Values at the edges of their ranges, and beyond."""

from __future__ import annotations

import numpy as np
import pytest

from vcore.errors import RequestError
from vcore.sampling_params import SamplingParams

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("n", [0, 1025]),
        ("temperature", [-0.1, 100.1, NAN, INF, None]),
        ("top_p", [0.0, 1.1, NAN]),
        ("top_k", [-2, 0.5]),
        ("min_p", [-0.1, 1.1, NAN]),
        ("presence_penalty", [-2.1, 2.1, NAN]),
        ("frequency_penalty", [-2.1, 2.1, NAN]),
        ("repetition_penalty", [0.0, 1e-320, 1e300, NAN, INF]),
        ("max_tokens", [0, 1.5]),
        ("min_tokens", [-1]),
        ("logprobs", [-1, 101]),
        ("prompt_logprobs", [-1, 101]),
        ("logit_bias", [{5: NAN}, {5: 100.5}, {"a": 1.0}]),
        ("stop", ["", ["a", ""], [1], b"a"]),
        ("allowed_token_ids", [[], ["a"]]),
        ("bad_words", ["", " "]),
        ("seed", ["a", 1.5]),
        ("tenant", ["", "x" * 257, 3]),
        ("ttft_target_s", [0.0, -1.0, NAN, INF, 1e6]),
        ("itl_target_s", [0.0, -1.0, NAN, INF, 1e6]),
        ("expected_tokens", [0, -1, 1.5]),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(field: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(RequestError, match=field):
            SamplingParams(**{field: value})


def test_numbers_of_numpy_are_numbers() -> None:
    params = SamplingParams(seed=np.int64(3), temperature=np.float32(0.5), stop_token_ids=np.array([1, 2]))
    assert (params.seed, params.temperature, params.stop_token_ids) == (3, 0.5, (1, 2))
    assert type(params.seed) is int
