"""DeepSeek-V2 and V3: latent attention in all its forms, every routing, dense layers beside layers of experts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from vcore.interfaces.model import Model
from vcore.testing import ModelContract

LATENT: dict[str, Any] = {
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "q_lora_rank": 20,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
}
EXPERTS: dict[str, Any] = {
    "first_k_dense_replace": 1,
    "n_routed_experts": 6,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 24,
    "routed_scaling_factor": 1.7,
}
YARN: dict[str, Any] = {
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10_000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "mscale": 0.707,
        "mscale_all_dim": 0.9,
        "beta_fast": 32,
        "beta_slow": 1,
    }
}
GROUPS: dict[str, Any] = {"n_group": 3, "topk_group": 2}


class DeepseekV2(ModelContract):
    model_type = "deepseek_v2"


class TestV2(DeepseekV2):
    """As DeepSeek-V2 is published."""

    overrides = {**LATENT, **EXPERTS, **YARN, **GROUPS, "topk_method": "group_limited_greedy", "num_hidden_layers": 3}


class TestV2Lite(DeepseekV2):
    """As DeepSeek-V2-Lite is published: queries without a latent of their own, no groups."""

    overrides = {**LATENT, **EXPERTS, **YARN, "q_lora_rank": None, "topk_method": "greedy"}

    @classmethod
    def wrong_models(cls, model: Callable[..., Model]) -> Iterator[tuple[str, Callable[..., Model]]]:
        """But for what joins the latents."""
        for mistake, wrong in super().wrong_models(model):
            if "q_kv_a_proj" not in mistake:
                yield mistake, wrong


class TestV2WithBiases(DeepseekV2):
    """Biases, plain rotary embedding, experts in every layer, one shared, tied embeddings."""

    overrides = {
        **LATENT,
        **EXPERTS,
        "first_k_dense_replace": 0,
        "n_shared_experts": 1,
        "attention_bias": True,
        "tie_word_embeddings": True,
        "topk_method": "greedy",
    }


class DeepseekV3(ModelContract):
    model_type = "deepseek_v3"


class TestV3(DeepseekV3):
    """As DeepSeek-V3 is published."""

    overrides = {**LATENT, **EXPERTS, **YARN, **GROUPS}


class TestV3Variants(DeepseekV3):
    """Everything the other way: no latent for queries, weights not made to sum to one, rotary halves, one group."""

    overrides = {
        **LATENT,
        **EXPERTS,
        "q_lora_rank": None,
        "n_routed_experts": 4,
        "norm_topk_prob": False,
        "rope_interleave": False,
        "n_group": 1,
        "topk_group": 1,
        "attention_bias": True,
        "tie_word_embeddings": True,
    }

    @classmethod
    def wrong_models(cls, model: Callable[..., Model]) -> Iterator[tuple[str, Callable[..., Model]]]:
        """But for what joins the latents."""
        for mistake, wrong in super().wrong_models(model):
            if "q_kv_a_proj" not in mistake:
                yield mistake, wrong
