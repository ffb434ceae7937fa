"""The length that a model's config states, position scaling included."""

from __future__ import annotations

from typing import Any

import pytest

from vcore.engine.resolve.context_length import resolve_max_model_len, trained_length
from vcore.errors import ConfigError, UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig


def config(**values: Any) -> HFConfig:
    return HFConfig({"max_position_embeddings": 1000} | values)


@pytest.mark.parametrize(
    ("values", "length"),
    [
        ({}, 1000),
        ({"rope_scaling": None}, 1000),
        ({"rope_scaling": {"type": "linear", "factor": 2.5}}, 2500),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 4}}, 4000),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4, "original_max_position_embeddings": 250}}, 1000),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 500}}, 2000),
        ({"rope_scaling": {"type": "yarn", "factor": 2}}, 2000),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8, "original_max_position_embeddings": 125}}, 1000),
        ({"rope_scaling": {"type": "longrope", "factor": 8, "original_max_position_embeddings": 125}}, 1000),
        ({"rope_scaling": {"type": "default", "mrope_section": [1]}}, 1000),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2, "rope_theta": 1e4}}, 2000),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 1000),
        (
            {
                "rope_parameters": {
                    "full_attention": {"rope_type": "yarn", "factor": 3},
                    "sliding_attention": {"rope_type": "default"},
                }
            },
            3000,
        ),
        ({"text_config": {"max_position_embeddings": 77}}, 77),
    ],
)
def test_scalings(values: dict[str, Any], length: int) -> None:
    found = trained_length(config(**values))
    assert found is not None
    assert found[0] == length
    assert str(length) in found[1] or "times" in found[1]


def test_real_models() -> None:
    deepseek = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096}
    found = trained_length(config(max_position_embeddings=163840, rope_scaling=deepseek))
    assert found is not None
    assert found[0] == 163840


@pytest.mark.parametrize("key", ["n_positions", "max_sequence_length", "max_seq_len", "seq_length"])
def test_other_names_of_the_length(key: str) -> None:
    assert trained_length(HFConfig({key: 64})) == (64, f"{key}=64")


def test_a_longer_one_is_refused_with_the_numbers() -> None:
    with pytest.raises(ConfigError, match=r"found 2,001, but the model goes up to 2,000 tokens .*linear.*factor of 2"):
        resolve_max_model_len(2001, config(rope_scaling={"type": "linear", "factor": 2}))
    assert resolve_max_model_len(2000, config(rope_scaling={"type": "linear", "factor": 2})) == (2000, None)


def test_a_config_that_does_not_say_needs_a_number() -> None:
    with pytest.raises(ConfigError, match=r"has none of max_position_embeddings.*write a number"):
        resolve_max_model_len("auto", HFConfig({}))
    assert resolve_max_model_len(10**6, HFConfig({})) == (10**6, None)


@pytest.mark.parametrize(
    "values",
    [
        {"max_position_embeddings": 0},
        {"max_position_embeddings": 64, "rope_scaling": {"rope_type": "linear", "factor": 0.0}},
    ],
)
@pytest.mark.parametrize("wanted", ["auto", 8])
def test_a_model_with_room_for_no_token_is_refused(values: dict[str, Any], wanted: int | str) -> None:
    with pytest.raises(UnsupportedModelError, match=r"config\.json: found room for 0 tokens"):
        resolve_max_model_len(wanted, HFConfig(values))


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", ["linear", "llama3"])
def test_a_factor_that_is_no_number_is_refused(kind: str, factor: float) -> None:
    """Python's JSON reads NaN and Infinity."""
    with pytest.raises(UnsupportedModelError, match=r"rope scaling with factor=(nan|-?inf), expected a number"):
        resolve_max_model_len("auto", config(rope_scaling={"type": kind, "factor": factor}))
