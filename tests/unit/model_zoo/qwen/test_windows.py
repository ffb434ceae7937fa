"""Which layers of a Qwen model have a window."""

from __future__ import annotations

from typing import Any

import pytest
from vcore_model_zoo.qwen.windows import sliding_windows

from vcore.errors import UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig

FULL, SLIDING = "full_attention", "sliding_attention"


def _windows(**config: Any) -> list[int | None]:
    return list(sliding_windows(HFConfig({"num_hidden_layers": 3, **config})))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, [None] * 3),
        ({"sliding_window": 8, "max_window_layers": 0}, [None] * 3),
        ({"sliding_window": 8, "use_sliding_window": False, "layer_types": [SLIDING] * 3}, [None] * 3),
        ({"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 0}, [8] * 3),
        ({"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 2}, [None, None, 8]),
        ({"sliding_window": 8, "use_sliding_window": True}, [None] * 3),  # from layer 28 on
        ({"use_sliding_window": True, "max_window_layers": 1}, [None, 4096, 4096]),
        ({"sliding_window": None, "use_sliding_window": True, "max_window_layers": 0}, [None] * 3),
        ({"sliding_window": 8, "use_sliding_window": True, "layer_types": [FULL, SLIDING, FULL]}, [None, 8, None]),
    ],
    ids=str,
)
def test_windows(config: dict[str, Any], expected: list[int | None]):
    assert _windows(**config) == expected


@pytest.mark.parametrize("types", [[FULL] * 2, ["chunked_attention"] * 3, "full_attention", [[FULL]] * 3, 3], ids=str)
def test_other_types_of_layers_are_refused(types: Any):
    with pytest.raises(UnsupportedModelError, match=r"layer_types=.*'full_attention' or 'sliding_attention' for each"):
        _windows(layer_types=types)
