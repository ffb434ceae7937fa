"""What is read from config.json whatever the architecture."""

from __future__ import annotations

from typing import Any

import pytest

from vcore.engine.resolve.hf_values import check_values, eos_token_ids, vocab_size
from vcore.errors import UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig

DENSE = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4}


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


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"architectures": "LlamaForCausalLM"}, "architectures='LlamaForCausalLM', expected a list of names"),
        ({"architectures": [3]}, r"architectures=\[3\], expected a list of names"),
        ({"hidden_size": "64"}, "hidden_size='64', expected a whole number from 0 to 2147483647"),
        ({"hidden_size": -64}, "hidden_size=-64, expected a whole number"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers=2.5, expected a whole number"),
        ({"head_dim": True}, "head_dim=True, expected a whole number"),
        ({"vocab_size": 10**12}, "vocab_size=1000000000000, expected a whole number"),
        ({"text_config": {"hidden_size": "64"}}, "hidden_size='64', expected a whole number"),
        ({"rms_norm_eps": "x" * 500}, r"rms_norm_eps='x{79}, expected a number"),
        ({"rope_theta": [1.0]}, "rope_theta=.*, expected a number"),
        ({"rope_scaling": "x"}, "rope_scaling='x', expected an object"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000, expected at most 4096 layers"),
        ({"n_layer": 4097}, "n_layer=4097, expected at most 4096 layers"),
        ({"text_config": {"num_layers": 10**6}}, "num_layers=1000000, expected at most 4096 layers"),
        ({"text_config": 3}, "text_config=3, expected an object"),
    ],
)
def test_values_that_cannot_be_are_refused_before_a_model_is_built(values: dict[str, Any], found: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"found {found}"):
        check_values(HFConfig(values))


@pytest.mark.parametrize(
    "values",
    [
        {},
        DENSE | {"architectures": ["A", "B"], "rms_norm_eps": 1, "rope_theta": 1e4, "rope_scaling": {"factor": 2}},
        {"architectures": None, "head_dim": None, "rope_scaling": None, "intermediate_size": [64, 128]},
        {"num_attention_heads": 0, "text_config": DENSE},
        {"num_hidden_layers": 4096, "n_layer": [1, 2]},
    ],
)
def test_what_a_model_may_make_sense_of_is_left_to_it(values: dict[str, Any]) -> None:
    check_values(HFConfig(values))


@pytest.mark.parametrize("value", ["x", [2, "a"], 2.0, True, {"id": 2}])
def test_ends_of_sequence_must_be_token_ids(value: object) -> None:
    with pytest.raises(UnsupportedModelError, match=r"generation_config.json: found eos_token_id="):
        eos_token_ids({"eos_token_id": value}, HFConfig({"eos_token_id": 2}))
    with pytest.raises(UnsupportedModelError, match=r"^config.json: found eos_token_id="):
        eos_token_ids({}, HFConfig({"eos_token_id": value}))
