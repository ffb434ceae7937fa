"""What is read from config.json whatever the architecture."""

from __future__ import annotations

from typing import Any

import pytest

from vcore.engine.resolve.hf_values import eos_token_ids, head_dims, kv_bytes_per_token, vocab_size
from vcore.errors import UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig

DENSE = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4}


@pytest.mark.parametrize(
    ("values", "dims", "num_bytes"),
    [
        (DENSE, (16,), 2 * 2 * 4 * 16 * 2),
        (DENSE | {"num_key_value_heads": 1}, (16,), 2 * 2 * 1 * 16 * 2),
        (DENSE | {"head_dim": 32}, (32,), 2 * 2 * 4 * 32 * 2),
        ({"text_config": DENSE}, (16,), 2 * 2 * 4 * 16 * 2),
        (DENSE | {"kv_lora_rank": 512, "qk_rope_head_dim": 64}, (), 2 * (512 + 64) * 2),
        (DENSE | {"kv_lora_rank": 512}, (), None),
        ({"num_hidden_layers": 2}, (), None),
        ({}, (), None),
    ],
)
def test_head_dims_and_cache_bytes(values: dict[str, Any], dims: tuple[int, ...], num_bytes: int | None) -> None:
    assert head_dims(HFConfig(values)) == dims
    assert kv_bytes_per_token(HFConfig(values), itemsize=2) == num_bytes


@pytest.mark.parametrize(
    ("generation", "values", "expected"),
    [
        ({"eos_token_id": [1, 2]}, {"eos_token_id": 3}, (1, 2)),
        ({"eos_token_id": 1}, {}, (1,)),
        ({"eos_token_id": None}, {"eos_token_id": [3, 4]}, (3, 4)),
        ({}, {"text_config": {"eos_token_id": 5}, "eos_token_id": 6}, (5,)),
        ({}, {}, ()),
        ({}, {"eos_token_id": 0}, (0,)),
    ],
)
def test_ends_of_sequence(generation: dict[str, object], values: dict[str, Any], expected: tuple[int, ...]) -> None:
    assert eos_token_ids(generation, HFConfig(values)) == expected


def test_the_vocabulary_must_be_stated() -> None:
    assert vocab_size(HFConfig({"text_config": {"vocab_size": 9}})) == 9
    for values in ({}, {"vocab_size": "9"}, {"vocab_size": 0}):
        with pytest.raises(UnsupportedModelError, match="vocab_size"):
            vocab_size(HFConfig(values))
