"""Which layers a config says look back over a window."""

from __future__ import annotations

from typing import Any

import pytest

from vcore.errors import UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig
from vcore.layers import FULL, SLIDING, layer_types


def _types(**config: Any) -> list[str]:
    return layer_types(
        HFConfig({"num_hidden_layers": 3, **config}), lambda layer_index: (FULL, SLIDING)[layer_index % 2]
    )


@pytest.mark.parametrize("stated", [{}, {"layer_types": None}], ids=str)
def test_without_any_they_are_the_default(stated: dict[str, Any]):
    assert _types(**stated) == [FULL, SLIDING, FULL]


def test_what_is_stated_counts():
    assert _types(layer_types=[SLIDING, SLIDING, FULL]) == [SLIDING, SLIDING, FULL]


@pytest.mark.parametrize(
    "stated", [[], [FULL] * 2, [FULL] * 4, ["chunked_attention"] * 3, FULL, [[FULL]] * 3, 3, 0], ids=str
)
def test_others_are_refused(stated: Any):
    with pytest.raises(UnsupportedModelError, match=r"found layer_types=.*expected .* for each of its 3 layers"):
        _types(layer_types=stated)


@pytest.mark.parametrize("count", [None, 0, "3"])
def test_the_number_of_layers_must_be_one(count: Any):
    with pytest.raises(UnsupportedModelError, match="found num_hidden_layers="):
        _types(num_hidden_layers=count)
