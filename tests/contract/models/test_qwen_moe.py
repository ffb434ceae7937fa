"""Qwen2-MoE and Qwen3-MoE: dense layers among the sparse ones, weights renormalised or not, shared experts, windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vcore.interfaces.model import Model
from vcore.testing import ModelContract


class Qwen2Moe(ModelContract):
    model_type = "qwen2_moe"


class Qwen3Moe(ModelContract):
    model_type = "qwen3_moe"

    @classmethod
    def wrong_models(cls, model: Callable[..., Model]) -> Iterator[tuple[str, Callable[..., Model]]]:
        """A mistake in dense layers shows only where there are some."""
        for mistake, wrong in super().wrong_models(model):
            if "gate_up_proj" not in mistake or "mlp_only_layers" in cls.overrides:
                yield mistake, wrong


_SIZES = {"moe_intermediate_size": 28, "head_dim": 12}
_SHARED = {"moe_intermediate_size": 28, "shared_expert_intermediate_size": 44}


class TestQwen3(Qwen3Moe):
    overrides = {**_SIZES, "num_experts": 8, "num_experts_per_tok": 3, "norm_topk_prob": True}


class TestQwen3WithoutRenormalising(Qwen3Moe):
    overrides = {**_SIZES, "num_experts": 6, "num_experts_per_tok": 2, "norm_topk_prob": False, "attention_bias": True}


class TestQwen3WithDenseLayers(Qwen3Moe):
    """Experts in layer 1 alone: layers 0 and 2 are no second ones, layer 3 is listed."""

    overrides = {
        **_SIZES,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 4,
        "decoder_sparse_step": 2,
        "mlp_only_layers": [3],
        "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 1e6},
        "tie_word_embeddings": True,
    }


class TestQwen3SlidingWindow(Qwen3Moe):
    overrides = {**_SIZES, "num_experts": 4, "num_experts_per_tok": 2, "use_sliding_window": True, "sliding_window": 9}


class TestQwen2(Qwen2Moe):
    overrides = {**_SHARED, "num_experts": 6, "num_experts_per_tok": 2}


class TestQwen2Renormalised(Qwen2Moe):
    overrides = {
        **_SHARED,
        "num_experts": 4,
        "num_experts_per_tok": 3,
        "norm_topk_prob": True,
        "qkv_bias": False,
        "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 1e4},
        "tie_word_embeddings": True,
        "mlp_only_layers": [0],
        "use_sliding_window": True,
        "sliding_window": 9,
    }
