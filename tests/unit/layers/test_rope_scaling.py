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


def test_a_partial_rotary_factor_turns_fewer_features():
    config = _config(partial_rotary_factor=0.5)
    assert _frequencies(config).inv_freq.shape == (HEAD_DIM // 4,)


def test_an_unknown_type_lists_those_that_are_known():
    with pytest.raises(UnsupportedModelError, match=r"'longrope'.*default, dynamic, linear, llama3, yarn"):
        _frequencies(_config(rope_parameters={"rope_type": "longrope"}))


@pytest.mark.parametrize(
    ("name", "key"), [("linear", "factor"), ("dynamic", "factor"), ("llama3", "low_freq_factor"), ("llama3", "factor")]
)
@pytest.mark.parametrize("value", [None, "8"])
def test_a_number_that_lacks_is_named(name: str, key: str, value: object):
    with pytest.raises(UnsupportedModelError, match=f"{name}.*config.json.*{key}"):
        _frequencies(_config(rope_parameters=_scaling(name) | {key: value}))
