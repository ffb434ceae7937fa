"""What Gemma's configs mean where they say little, which layers have windows, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from vcore_backends.torch_sdpa.backend import TorchSDPABackend
from vcore_model_zoo.gemma.config import activation, alternating_types
from vcore_model_zoo.gemma.gemma1 import GemmaForCausalLM
from vcore_model_zoo.gemma.gemma2 import Gemma2ForCausalLM
from vcore_model_zoo.gemma.gemma3 import Gemma3ForCausalLM, Gemma3ForConditionalGeneration

from vcore.cli.main import run
from vcore.errors import UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.weights import CheckpointReader
from vcore.layers import FULL, SLIDING
from vcore.testing import ModelDriver

SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 20,
    "intermediate_size": 24,
    "num_hidden_layers": 7,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
}
ALL = [GemmaForCausalLM, Gemma2ForCausalLM, Gemma3ForCausalLM]


class MadeUpWeights(CheckpointReader):
    """Small numbers that depend on the name alone."""

    synthetic = True

    def tensors(self):
        return {}

    def read(self, name, shape, index=None):
        generator = torch.Generator().manual_seed(sum(name.encode()))
        return torch.randn(shape, generator=generator)[index or ()] * 0.3


def build(model: Any, config: dict[str, Any], **keywords: Any) -> ModelDriver:
    config = {"head_dim": 8, **config}
    keywords = {"max_model_len": 32, **keywords}
    return ModelDriver(model, HFConfig(config), MadeUpWeights(), attention=TorchSDPABackend, **keywords)


def logits(model: Any, config: dict[str, Any]) -> torch.Tensor:
    return build(model, config).step({"a": [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]})["a"]


def windows(model: Any, config: dict[str, Any]) -> list[int | None]:
    """Of each layer, for requests that are longer than any."""
    return [spec.window for spec in build(model, config, max_model_len=4097).model.kv_cache_specs()]


@pytest.mark.parametrize("model", ALL)
def test_what_a_config_leaves_out_has_the_values_of_the_architecture(model: Any):
    """Checkpoints are saved without what equals them."""
    built = ModelDriver(model, HFConfig(SIZES), MadeUpWeights(), attention=TorchSDPABackend, max_model_len=32)
    assert built.model.lm_head.weight is built.model.model.embed_tokens.weight
    assert built.layer_caches[0].shape[-1] == 256
    assert built.model.model.norm.eps == 1e-6


def test_null_is_a_value():
    """A cap of null is none, not the usual one."""
    uncapped = SIZES | {"final_logit_softcapping": None, "attn_logit_softcapping": None}
    largest = SIZES | {"final_logit_softcapping": 1e9, "attn_logit_softcapping": 1e9}
    torch.testing.assert_close(logits(Gemma2ForCausalLM, uncapped), logits(Gemma2ForCausalLM, largest))
    assert (logits(Gemma2ForCausalLM, SIZES) - logits(Gemma2ForCausalLM, uncapped)).abs().max() > 1e-3


def test_every_other_layer_of_gemma2_has_a_window():
    assert windows(Gemma2ForCausalLM, SIZES) == [4096, None, 4096, None, 4096, None, 4096]


def test_every_sixth_layer_of_gemma3_has_none():
    assert windows(Gemma3ForCausalLM, SIZES | {"sliding_window": 8}) == [8, 8, 8, 8, 8, None, 8]


def test_layer_types_come_before_the_pattern():
    config = SIZES | {"num_hidden_layers": 3, "layer_types": [FULL, SLIDING, FULL], "sliding_window_pattern": 2}
    assert windows(Gemma3ForCausalLM, config) == [None, 4096, None]
    del config["layer_types"]
    assert windows(Gemma3ForCausalLM, config) == [4096, None, 4096]


@pytest.mark.parametrize("stated", [[FULL], [FULL, "chunked_attention"], [FULL, FULL, FULL]])
def test_layer_types_that_do_not_fit_are_named(stated: list[str]):
    config = HFConfig({"num_hidden_layers": 2, "layer_types": stated})
    with pytest.raises(UnsupportedModelError, match=r"found layer_types=.*expected .* each of its 2 layers"):
        alternating_types(config, period=2)


@pytest.mark.parametrize("model", ALL)
def test_attention_in_both_directions_is_refused(model: Any):
    with pytest.raises(UnsupportedModelError, match="use_bidirectional_attention"):
        build(model, SIZES | {"use_bidirectional_attention": True})


@pytest.mark.parametrize("model", ALL)
def test_an_unknown_activation_is_refused(model: Any):
    with pytest.raises(UnsupportedModelError, match="'relu'"):
        build(model, SIZES | {"hidden_act": "relu"})


def test_the_first_checkpoints_say_gelu_and_mean_its_approximation():
    assert activation(HFConfig({"hidden_act": "gelu"})) == "gelu_pytorch_tanh"
    assert activation(HFConfig({"hidden_act": "gelu", "hidden_activation": None})) == "gelu_pytorch_tanh"
    assert activation(HFConfig({"hidden_act": "gelu", "hidden_activation": "silu"})) == "silu"


def test_both_ways_to_write_two_rotary_bases_mean_the_same():
    before = {"rope_theta": 5e5, "rope_local_base_freq": 5e3, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}
    since = {
        "rope_parameters": {
            FULL: {"rope_theta": 5e5, "rope_type": "linear", "factor": 4.0},
            SLIDING: {"rope_theta": 5e3, "rope_type": "default"},
        }
    }
    expected = logits(Gemma3ForCausalLM, SIZES | since)
    torch.testing.assert_close(logits(Gemma3ForCausalLM, SIZES | before), expected, rtol=0, atol=0)
    assert (logits(Gemma3ForCausalLM, SIZES) - expected).abs().max() > 1e-3


@pytest.mark.parametrize(
    "rope", [{"rope_type": "linear", "factor": 4.0}, {FULL: 3}, {"chunked_attention": {}}], ids=str
)
def test_rotary_parameters_that_are_of_neither_type_are_refused(rope: dict[str, Any]):
    """Rather than left out."""
    with pytest.raises(
        UnsupportedModelError, match=r"found rope_parameters=.*'full_attention' and 'sliding_attention'"
    ):
        build(Gemma3ForCausalLM, SIZES | {"rope_parameters": rope})


def test_without_rotary_parameters_they_are_a_million_and_ten_thousand():
    stated = SIZES | {"rope_theta": 1e6, "rope_local_base_freq": 1e4}
    torch.testing.assert_close(logits(Gemma3ForCausalLM, SIZES), logits(Gemma3ForCausalLM, stated), rtol=0, atol=0)


def test_a_nested_config_is_that_of_the_text():
    """As few keys as published checkpoints with images have: the others are the architecture's."""
    text = {key: value for key, value in SIZES.items() if "heads" not in key and key != "vocab_size"}
    config = {"text_config": text | {"head_dim": 8}, "vision_config": {"hidden_size": 5}}
    driver = build(Gemma3ForConditionalGeneration, config)
    assert len(driver.layer_caches) == 7
    assert driver.model.model.embed_tokens.weight.shape == (262_208, 20)


@pytest.mark.parametrize("model", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_embedding_scale_is_rounded_to_the_dtype(model: Any, dtype: torch.dtype):
    """As in training: the root of 20 in bfloat16 is 4.46875, not 4.4721."""
    built = build(model, SIZES, dtype=dtype).model
    seen = []
    built.model.layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with pytest.raises(AttributeError):  # the attention layer finds no step
        built(torch.tensor([3]), torch.tensor([0]), None)
    scale = torch.tensor(math.sqrt(20)).to(dtype)
    assert torch.equal(seen[0], built.model.embed_tokens.weight[[3]] * scale)


def test_a_published_config_with_images_is_enough_for_the_engine(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """The config.json of the 4B model has six keys about text, and no length; scaling is part of its 131,072."""
    text = {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34}
    text |= {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text, "eos_token_id": [1, 106]}
    (tmp_path / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16"}), encoding="utf-8")
    assert run(["models", "check", str(tmp_path), "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["plugin"] == "model/gemma3_multimodal@vcore-engine"
    assert report["max_model_len"] == 131_072
    assert report["num_parameters"] == 3_880_263_168  # as published, without the vision tower
    assert [(kind["num_layers"], kind["window"]) for kind in report["kv_cache"]] == [(29, 1024), (5, None)]
