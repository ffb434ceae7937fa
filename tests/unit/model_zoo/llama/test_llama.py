"""What Llama refuses, how its embeddings are tied, and that it splits over ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vcore_backends.torch_sdpa.backend import TorchSDPABackend
from vcore_model_zoo.llama.model import LlamaForCausalLM

from vcore.errors import ConfigError, UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.weights import CheckpointReader
from vcore.testing.model_driver import ModelDriver

CONFIG: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
}


class MadeUpWeights(CheckpointReader):
    """Small numbers that depend on the name alone."""

    synthetic = True

    def tensors(self):
        return {}

    def read(self, name, shape, index=None):
        generator = torch.Generator().manual_seed(sum(name.encode()))
        return torch.randn(shape, generator=generator)[index or ()] * 0.1


def _driver(config: dict[str, Any], **keywords: Any) -> ModelDriver:
    return ModelDriver(
        LlamaForCausalLM, HFConfig(config), MadeUpWeights(), attention=TorchSDPABackend, max_model_len=32, **keywords
    )


def test_another_activation_is_refused():
    with pytest.raises(UnsupportedModelError, match=r"config asks for the activation 'gelu'.* silu,"):
        _driver(CONFIG | {"hidden_act": "gelu"})


def test_an_unknown_rope_scaling_is_refused():
    with pytest.raises(UnsupportedModelError, match=r"'spiral'.*default, dynamic, linear, llama3, longrope, yarn"):
        _driver(CONFIG | {"rope_scaling": {"type": "spiral"}})


@pytest.mark.parametrize("key", ["hidden_size", "rms_norm_eps", "max_position_embeddings"])
def test_a_key_that_lacks_is_named(key: str):
    with pytest.raises(UnsupportedModelError, match=f"config.json has no '{key}'"):
        _driver({name: value for name, value in CONFIG.items() if name != key})


def test_without_kv_heads_each_head_has_its_own():
    driver = _driver({name: value for name, value in CONFIG.items() if name != "num_key_value_heads"})
    assert driver.layer_caches[0].shape[3] == 4


def test_tied_embeddings_are_one_parameter():
    model = _driver(CONFIG | {"tie_word_embeddings": True}).model
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert "lm_head.weight" not in dict(model.named_parameters())


def test_a_pipeline_stage_starts_from_hidden_states():
    """`intermediate` stands for the embeddings, and is not changed."""
    driver = _driver(CONFIG)
    model, prompt = driver.model, [3, 1, 4]
    expected = driver.step({"a": prompt})["a"]
    forward, given = model.forward, []

    def from_embeddings(input_ids: torch.Tensor, positions: torch.Tensor, attn: Any) -> torch.Tensor:
        given.append(model.model.embed_tokens(input_ids))
        before = given[0].clone()
        hidden_states = forward(torch.zeros_like(input_ids), positions, attn, given[0])
        assert torch.equal(given[0], before)
        return hidden_states

    model.forward = from_embeddings  # type: ignore[method-assign]
    torch.testing.assert_close(driver.step({"b": prompt})["b"], expected)
    assert given


def test_several_ranks_need_a_collective():
    with pytest.raises(ConfigError, match="no collective"):
        _driver(CONFIG, tp_size=2)


def test_a_rank_builds_its_share():
    class Alone:
        def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
            return tensor

        def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
            return tensor

    driver = _driver(CONFIG, tp_rank=1, tp_size=2, collective=Alone())
    layer = driver.model.model.layers[0]
    assert layer.self_attn.qkv_proj.weight.shape == ((2 + 1 + 1) * 4, 16)
    assert layer.self_attn.o_proj.weight.shape == (16, 8)
    assert layer.mlp.gate_up_proj.weight.shape == (24, 16)
    assert layer.mlp.down_proj.weight.shape == (16, 12)
    assert driver.layer_caches[0].shape[3:] == (1, 4)
