"""DeepSeek-V2 and V3: latent attention in all its forms, every routing, dense layers beside layers of experts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import vcore_model_zoo.deepseek.model as deepseek

from vcore.interfaces.model import Model
from vcore.layers import MLAAttention, latent_attention, latent_prefill
from vcore.testing import ModelContract, ModelDriver, TinyCheckpoint

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
    """Everything the other way: no latent for queries, weights not made to sum to one, rotary halves, one group.

    The latent is so wide that chunks are projected up, a few tokens of their context at a time.
    """

    overrides = {
        **LATENT,
        **EXPERTS,
        "kv_lora_rank": 32,
        "qk_nope_head_dim": 4,
        "v_head_dim": 3,
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

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def small_workspace(cls) -> Iterator[list[int]]:
        """Also notes of how many pieces each chunk over a cached context consists."""
        plans: list[int] = []

        def plan(*arguments: Any, **keywords: Any) -> Any:
            pieces = latent_prefill.plan_prefill(*arguments, **keywords)
            plans.append(len(pieces or ()))
            return pieces

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(deepseek, "MLAAttention", partial(MLAAttention, workspace_tokens=5))
            patch.setattr(latent_attention, "plan_prefill", plan)
            yield plans

    def test_chunks_come_in_pieces(
        self, tiny: TinyCheckpoint, driver: Callable[..., ModelDriver], small_workspace: list[int]
    ) -> None:
        small_workspace.clear()
        self._check_mixed_batches(tiny, driver(block_size=4))
        assert max(small_workspace) > 2
