"""What `PoolingParams` refuses when it is made, in the words of `SamplingParams`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vcore import PoolingParams, SamplingParams
from vcore.errors import RequestError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dimensions": "8"}, "PoolingParams.dimensions: Input should be a valid integer, got '8'"),
        ({"dimensions": True}, "PoolingParams.dimensions: Input should be a valid integer, got True"),
        ({"dimensions": 8.0}, "PoolingParams.dimensions: Input should be a valid integer, got 8.0"),
        ({"dimensions": 3.5}, "PoolingParams.dimensions: Input should be a valid integer, got 3.5"),
        ({"dimensions": np.bool_(True)}, "PoolingParams.dimensions: Input should be a valid integer, got np.True_"),
        (
            {"dimensions": np.ones(2, int)},
            "PoolingParams.dimensions: Input should be a valid integer, got array([1, 1])",
        ),
        ({"dimensions": 0}, "PoolingParams.dimensions: Input should be greater than or equal to 1, got 0"),
        ({"normalize": 1}, "PoolingParams.normalize: Input should be a valid boolean, got 1"),
        ({"normalize": "yes"}, "PoolingParams.normalize: Input should be a valid boolean, got 'yes'"),
        ({"priority": "high"}, "PoolingParams.priority: Input should be a valid integer, got 'high'"),
        ({"priority": None}, "PoolingParams.priority: Input should be a valid integer, got None"),
        ({"tenant": ""}, "PoolingParams.tenant: String should have at least 1 character, got ''"),
        ({"tenant": b"t"}, "PoolingParams.tenant: Input should be a valid string, got b't'"),
        ({"cache_salt": 5}, "PoolingParams.cache_salt: Input should be a valid string, got 5"),
        ({"dimension": 8}, "PoolingParams has no 'dimension'"),
    ],
)
def test_values_are_checked_when_they_are_given(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        PoolingParams(**values)
    assert str(caught.value).startswith(message)
    assert caught.value.param == next(iter(values))


def test_what_is_right_is_taken() -> None:
    params = PoolingParams(normalize=False, dimensions=8, priority=-3, tenant="t", cache_salt="s")
    assert (params.normalize, params.dimensions, params.priority) == (False, 8, -3)
    assert PoolingParams().normalize is None
    dimensions = PoolingParams(dimensions=np.int64(8)).dimensions
    assert (dimensions, type(dimensions)) == (8, int)


def test_an_error_about_several_fields_names_the_one_that_it_begins_with() -> None:
    with pytest.raises(RequestError, match="min_tokens=9 is more than max_tokens=3") as caught:
        SamplingParams(min_tokens=9, max_tokens=3)
    assert caught.value.param == "min_tokens"
