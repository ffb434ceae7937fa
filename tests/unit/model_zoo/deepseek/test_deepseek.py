"""What the published configs of DeepSeek come to, what is left out while loading, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from vcore_backends.torch_sdpa.backend import TorchSDPABackend
from vcore_model_zoo.deepseek.deepseek_v2 import DeepseekV2ForCausalLM
from vcore_model_zoo.deepseek.deepseek_v3 import DeepseekV3ForCausalLM
from vcore_model_zoo.deepseek.model import DeepseekForCausalLM, score_scale

from vcore.errors import UnsupportedModelError, WeightsError
from vcore.interfaces.attention import AttentionBackendContext
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import BuildContext
from vcore.kv_cache.spec import LatentCacheSpec
from vcore.layers import GatedMLP, MoEBlock
from vcore.testing.memory_checkpoint import MemoryCheckpoint

V2_LITE: dict[str, Any] = {
    "first_k_dense_replace": 1,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "moe_intermediate_size": 1408,
    "moe_layer_freq": 1,
    "n_group": 1,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "norm_topk_prob": False,
    "num_attention_heads": 16,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 27,
    "num_key_value_heads": 16,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 0.707,
        "mscale_all_dim": 0.707,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 1.0,
    "scoring_func": "softmax",
    "tie_word_embeddings": False,
    "topk_group": 1,
    "topk_method": "greedy",
    "v_head_dim": 128,
    "vocab_size": 102400,
}
"""As published."""

V3: dict[str, Any] = V2_LITE | {
    "first_k_dense_replace": 3,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "rope_scaling": V2_LITE["rope_scaling"] | {"mscale": 1.0, "mscale_all_dim": 1.0},
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "vocab_size": 129280,
}

SMALL: dict[str, Any] = {
    "hidden_size": 12,
    "intermediate_size": 8,
    "kv_lora_rank": 6,
    "moe_intermediate_size": 4,
    "n_routed_experts": 4,
    "num_attention_heads": 2,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 2,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 2,
    "v_head_dim": 4,
    "vocab_size": 10,
}


def _context(config: dict[str, Any], device: str = "meta", **fields: Any) -> BuildContext:
    backend = TorchSDPABackend(
        options=None,
        context=AttentionBackendContext(
            device=torch.device("cpu"),
            dtype=torch.bfloat16,
            block_size=16,
            max_num_seqs=8,
            max_num_batched_tokens=64,
            max_model_len=64,
        ),
    )
    return BuildContext(
        config=HFConfig(config),
        dtype=torch.bfloat16,
        device=torch.device(device),
        attention=backend,
        max_model_len=64,
        **fields,
    )


def _num_weights(model: DeepseekForCausalLM) -> int:
    return sum(weight.numel() for weight in model.parameters())


def test_v2_lite_keeps_the_latent_alone():
    model = DeepseekV2ForCausalLM(options=None, context=_context(V2_LITE))
    specs = model.kv_cache_specs()
    assert specs == [LatentCacheSpec(dtype=torch.bfloat16, latent_dim=576)] * 27
    assert specs[0].page_bytes(1) == 1152
    assert specs[0].page_shape(16) == (16, 576)
    assert round(_num_weights(model) / 1e9, 1) == 15.7  # as the paper says


def test_v3_has_as_many_weights_as_published():
    model = DeepseekV3ForCausalLM(options=None, context=_context(V3))
    assert model.kv_cache_specs() == [LatentCacheSpec(dtype=torch.bfloat16, latent_dim=576)] * 61
    assert round(_num_weights(model) / 1e9) == 671


@pytest.mark.parametrize(("config", "mscale"), [(V2_LITE, 0.707), (V3, 1.0)])
def test_scores_are_scaled_as_published(config: dict[str, Any], mscale: float):
    expected = 192**-0.5 * (0.1 * mscale * math.log(40) + 1) ** 2
    assert score_scale(_context(config)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_scaling": None},
        {"rope_scaling": V2_LITE["rope_scaling"] | {"mscale_all_dim": 0}},
        {"rope_scaling": V2_LITE["rope_scaling"] | {"factor": 1}},
        {"rope_scaling": {"rope_type": "default", "mscale_all_dim": 0.707, "factor": 40}},
    ],
    ids=["none", "no mscale", "factor one", "default"],
)
def test_without_yarn_scores_are_scaled_by_the_head_alone(rope: dict[str, Any]):
    assert score_scale(_context(V2_LITE | rope)) == pytest.approx(192**-0.5)


@pytest.mark.parametrize(
    ("config", "with_experts"),
    [
        ({"first_k_dense_replace": 1}, [1, 2, 3, 4, 5]),
        ({"first_k_dense_replace": 2, "moe_layer_freq": 2}, [2, 4]),
        ({"moe_layer_freq": 3}, [0, 3]),
        ({"n_routed_experts": None}, []),
    ],
    ids=str,
)
def test_which_layers_have_experts(config: dict[str, Any], with_experts: list[int]):
    config = V2_LITE | SMALL | {"num_hidden_layers": 6, "first_k_dense_replace": 0} | config
    layers = DeepseekV2ForCausalLM(options=None, context=_context(config)).model.layers
    assert [index for index, layer in enumerate(layers) if isinstance(layer.mlp, MoEBlock)] == with_experts
    assert all(isinstance(layer.mlp, MoEBlock | GatedMLP) for layer in layers)


def test_there_may_be_no_shared_experts():
    config = V2_LITE | SMALL | {"n_shared_experts": None}
    assert DeepseekV2ForCausalLM(options=None, context=_context(config)).model.layers[1].mlp.shared_experts is None


def _checkpoint(model: DeepseekForCausalLM) -> dict[str, torch.Tensor]:
    """A checkpoint with every tensor that the model reads."""
    tensors = {}
    modules: dict[str, Any] = dict(model.named_modules())
    for name, _ in model.named_parameters():
        path, _, leaf = name.rpartition(".")
        for part_name, part in model.weight_map.checkpoint_parts(name, modules[path].weight_parts(leaf)):
            tensors[part_name] = torch.zeros(part.shape)
    return tensors


PREDICTION_MODULE = ("eh_proj.weight", "enorm.weight", "self_attn.kv_b_proj.weight", "shared_head.head.weight")


def _v3(**config: Any) -> DeepseekV3ForCausalLM:
    return DeepseekV3ForCausalLM(
        options=None, context=_context(V3 | SMALL | {"n_group": 2, "topk_group": 1} | config, "cpu")
    )


def test_modules_that_predict_further_tokens_are_not_loaded():
    model = _v3(num_nextn_predict_layers=2)
    tensors = _checkpoint(model)
    further = {f"model.layers.{layer}.{name}": torch.zeros(1) for layer in (2, 3) for name in PREDICTION_MODULE}
    model.load_weights(MemoryCheckpoint(tensors | further))


@pytest.mark.parametrize(("count", "layer"), [(1, 3), (0, 2), (None, 2)])
def test_layers_that_the_config_does_not_tell_of_are_surplus(count: int | None, layer: int):
    model = _v3(num_nextn_predict_layers=count)
    surplus = f"model.layers.{layer}.enorm.weight"
    with pytest.raises(WeightsError, match=f"1 surplus: {surplus}"):
        model.load_weights(MemoryCheckpoint(_checkpoint(model) | {surplus: torch.zeros(1)}))


def test_v2_has_no_such_modules():
    config = V2_LITE | SMALL | {"num_nextn_predict_layers": 1}
    model = DeepseekV2ForCausalLM(options=None, context=_context(config, "cpu"))
    surplus = "model.layers.2.enorm.weight"
    with pytest.raises(WeightsError, match=f"1 surplus: {surplus}"):
        model.load_weights(MemoryCheckpoint(_checkpoint(model) | {surplus: torch.zeros(1)}))


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        (DeepseekV2ForCausalLM, {"topk_method": "noaux_tc"}, "topk_method='noaux_tc'; known are 'greedy'"),
        (DeepseekV2ForCausalLM, {"scoring_func": "sigmoid"}, "scoring_func='sigmoid'.*'softmax' only"),
        (DeepseekV2ForCausalLM, {"mlp_bias": True}, "mlp_bias=true.*without biases only"),
        (DeepseekV2ForCausalLM, {"hidden_act": "relu"}, "relu"),
        (DeepseekV2ForCausalLM, {"rope_scaling": {"type": "spiral"}}, "'spiral'"),
        (DeepseekV3ForCausalLM, {"topk_method": "greedy", "scoring_func": "sigmoid"}, "topk_method='greedy'"),
        (DeepseekV3ForCausalLM, {"topk_method": "noaux_tc"}, "scoring_func='softmax'.*'sigmoid' only"),
    ],
)
def test_what_is_not_known_is_refused(model: type[DeepseekForCausalLM], config: dict[str, Any], message: str):
    with pytest.raises(UnsupportedModelError, match=message):
        model(options=None, context=_context(V2_LITE | SMALL | config))


@pytest.mark.parametrize("key", ["kv_lora_rank", "qk_rope_head_dim", "v_head_dim", "moe_intermediate_size"])
def test_a_key_that_lacks_is_named(key: str):
    config = {name: value for name, value in (V2_LITE | SMALL).items() if name != key}
    with pytest.raises(UnsupportedModelError, match=f"config.json has no '{key}'"):
        DeepseekV2ForCausalLM(options=None, context=_context(config))
