"""Frequencies against transformers, for each scaling and for both ways in which configs write it."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from vcore.errors import UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig
from vcore.layers.rope_scaling import RopeFrequencies, RopeParameters, rope_frequencies

HEAD_DIM = 64
TRAINED = 4096
ORIGINAL = 1024

SCALINGS = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 2.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": ORIGINAL,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": ORIGINAL},
    "yarn-own": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": ORIGINAL,
        "attention_factor": 1.5,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "truncate": False,
    },
    "yarn-mscale": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": ORIGINAL,
        "mscale": 1.0,
        "mscale_all_dim": 0.7,
    },
    "yarn-wide": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": ORIGINAL, "beta_fast": 0},
}


def _scaling(name: str) -> dict[str, object]:
    return {"rope_type": name} | SCALINGS[name]


def _config(**values: object) -> HFConfig:
    return HFConfig({"max_position_embeddings": TRAINED, **values})


def _frequencies(config: HFConfig, max_model_len: int = 128) -> RopeFrequencies:
    return rope_frequencies(RopeParameters.from_config(config, HEAD_DIM, max_model_len))


def _reference(scaling: dict[str, object], theta: float) -> LlamaRotaryEmbedding:
    return LlamaRotaryEmbedding(
        LlamaConfig(
            hidden_size=4 * HEAD_DIM,
            num_attention_heads=4,
            max_position_embeddings=TRAINED,
            rope_parameters={**scaling, "rope_theta": theta},
        )
    )


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize("name", SCALINGS)
def test_frequencies_are_those_of_transformers(name: str, theta: float):
    reference = _reference(_scaling(name), theta)
    written = [
        _config(rope_parameters={**_scaling(name), "rope_theta": theta}),
        _config(rope_scaling=_scaling(name), rope_theta=theta),
        _config(rope_scaling={"type": _scaling(name)["rope_type"], **SCALINGS[name]}, rope_theta=theta),
    ]
    for config in written:
        ours = _frequencies(config)
        torch.testing.assert_close(ours.inv_freq, reference.inv_freq, rtol=1e-6, atol=1e-9)
        assert ours.attention_factor == pytest.approx(reference.attention_scaling, rel=1e-6)


def test_without_any_scaling_the_frequencies_are_plain():
    for config in (_config(rope_theta=1e4), _config(), _config(rope_scaling=None, rope_parameters=None)):
        torch.testing.assert_close(_frequencies(config).inv_freq, _reference({"rope_type": "default"}, 1e4).inv_freq)


def test_dynamic_is_fixed_at_the_longest_request():
    """What transformers computes for one whole prompt of `max_model_len` tokens; nothing is scaled below."""
    scaling = _scaling("dynamic")
    config = _config(rope_parameters={**scaling, "rope_theta": 1e4})
    plain = _frequencies(_config(rope_theta=1e4)).inv_freq
    for max_model_len in (1, TRAINED - 1, TRAINED):
        torch.testing.assert_close(_frequencies(config, max_model_len).inv_freq, plain)
    for max_model_len in (TRAINED + 1, 2 * TRAINED, 10_000):
        reference = _reference(scaling, 1e4)
        expected, factor = ROPE_INIT_FUNCTIONS["dynamic"](reference.config, seq_len=max_model_len)
        ours = _frequencies(config, max_model_len)
        torch.testing.assert_close(ours.inv_freq, expected, rtol=1e-6, atol=1e-9)
        assert ours.attention_factor == factor
        assert not torch.allclose(ours.inv_freq[-1], plain[-1])


def test_a_pretrained_length_beside_the_scaling_has_precedence():
    scaling = _scaling("llama3")
    beside = _config(rope_scaling=scaling, original_max_position_embeddings=2 * ORIGINAL)
    inside = _config(rope_scaling=scaling | {"original_max_position_embeddings": 2 * ORIGINAL})
    torch.testing.assert_close(_frequencies(beside).inv_freq, _frequencies(inside).inv_freq, rtol=0, atol=0)


def test_yarn_without_a_factor_takes_the_ratio_of_lengths():
    without = {"rope_type": "yarn", "original_max_position_embeddings": ORIGINAL}
    stated = without | {"factor": TRAINED / ORIGINAL}
    ours, expected = (_frequencies(_config(rope_parameters=scaling)) for scaling in (without, stated))
    torch.testing.assert_close(ours.inv_freq, expected.inv_freq, rtol=0, atol=0)
    assert ours.attention_factor == expected.attention_factor


_LONGROPE = {
    "short_factor": [1.0 + pair / 100 for pair in range(HEAD_DIM // 2)],
    "long_factor": [2.0 + pair for pair in range(HEAD_DIM // 2)],
}


@pytest.mark.parametrize("numbers", [{}, {"factor": 8.0}, {"attention_factor": 1.5}, {"factor": 0.5}], ids=str)
@pytest.mark.parametrize("max_model_len", [1, ORIGINAL, ORIGINAL + 1, TRAINED])
def test_longrope_is_fixed_by_the_longest_request(max_model_len: int, numbers: dict[str, float]):
    """What transformers computes for one text of `max_model_len` tokens."""
    scaling = {"rope_type": "longrope", "original_max_position_embeddings": ORIGINAL, **_LONGROPE, **numbers}
    reference = _reference(scaling, 1e4)
    expected, factor = ROPE_INIT_FUNCTIONS["longrope"](reference.config, seq_len=max_model_len)
    for config in (
        _config(rope_parameters={**scaling, "rope_theta": 1e4}),
        _config(rope_scaling={"type": "su", **_LONGROPE, **numbers}, original_max_position_embeddings=ORIGINAL),
        _config(rope_scaling={"type": "yarn", **_LONGROPE, **numbers}, original_max_position_embeddings=ORIGINAL),
    ):
        ours = _frequencies(config, max_model_len)
        torch.testing.assert_close(ours.inv_freq, expected, rtol=1e-6, atol=1e-9)
        assert ours.attention_factor == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize(
    ("value", "found"), [(None, "None"), ([1.0], "a list of 1"), (["1"] * 32, r"\['1'"), (3.0, r"3\.0")], ids=str
)
def test_wrong_longrope_factors_are_named(value: object, found: str):
    scaling = {"rope_type": "longrope", **_LONGROPE, "long_factor": value, "original_max_position_embeddings": ORIGINAL}
    config = _config(rope_parameters=scaling)
    assert _frequencies(config, ORIGINAL).inv_freq.shape == (HEAD_DIM // 2,)  # there the short ones serve
    with pytest.raises(UnsupportedModelError, match=f"config.json needs a list of 32 numbers 'long_factor'.*{found}"):
        _frequencies(config, ORIGINAL + 1)


def _by_type(config: HFConfig) -> dict[str, RopeParameters]:
    types = ("full_attention", "sliding_attention")
    return {one: RopeParameters.from_config(config, HEAD_DIM, 128, layer_type=one) for one in types}


@pytest.mark.parametrize(
    "written",
    [
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }
        },
        {
            "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0}, "sliding_attention": {}},
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
        },
        {
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
        },
    ],
    ids=["nested", "nested-without-bases", "before-nesting"],
)
def test_each_type_of_layer_has_its_own(written: dict[str, object]):
    found = _by_type(_config(**written))
    assert (found["full_attention"].rope_type, found["full_attention"].theta) == ("linear", 1e6)
    assert found["full_attention"].number("factor") == 8.0
    assert (found["sliding_attention"].rope_type, found["sliding_attention"].theta) == ("default", 1e4)


def test_types_of_layers_that_the_config_does_not_tell_apart_have_the_same():
    found = _by_type(_config(rope_parameters=_scaling("llama3") | {"rope_theta": 5e5}))
    assert found["full_attention"] == found["sliding_attention"]
    assert (found["full_attention"].rope_type, found["full_attention"].theta) == ("llama3", 5e5)


def test_one_set_for_all_is_not_made_of_several():
    config = _config(rope_parameters={"full_attention": {"rope_type": "default"}})
    with pytest.raises(UnsupportedModelError, match=r"for each type of layer \(full_attention\)"):
        _frequencies(config)


def test_a_partial_rotary_factor_turns_fewer_features():
    config = _config(partial_rotary_factor=0.5)
    assert _frequencies(config).inv_freq.shape == (HEAD_DIM // 4,)


def test_an_unknown_type_lists_those_that_are_known():
    with pytest.raises(UnsupportedModelError, match=r"'spiral'.*default, dynamic, linear, llama3, longrope, yarn"):
        _frequencies(_config(rope_parameters={"rope_type": "spiral"}))


@pytest.mark.parametrize(
    ("name", "key"), [("linear", "factor"), ("dynamic", "factor"), ("llama3", "low_freq_factor"), ("llama3", "factor")]
)
@pytest.mark.parametrize("value", [None, "8"])
def test_a_number_that_lacks_is_named(name: str, key: str, value: object):
    with pytest.raises(UnsupportedModelError, match=f"{name}.*config.json.*{key}"):
        _frequencies(_config(rope_parameters=_scaling(name) | {key: value}))
