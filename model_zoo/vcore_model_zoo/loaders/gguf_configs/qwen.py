"""GGUF's ``qwen2``, ``qwen3`` and ``qwen3moe``."""

from __future__ import annotations

from typing import Any

from vcore_model_zoo.loaders.gguf_configs.dense import dense_config
from vcore_model_zoo.loaders.gguf_configs.rope_scaling import rope_scaling
from vcore_model_zoo.loaders.gguf_metadata import GGUFMetadata

__all__ = ["qwen2_config", "qwen3_config", "qwen3_moe_config"]


def qwen2_config(metadata: GGUFMetadata) -> dict[str, Any]:
    """``Qwen2ForCausalLM``. GGUF has no place for its window, which no released model of it uses."""
    return _qwen_config(metadata, "Qwen2ForCausalLM", "qwen2")


def qwen3_config(metadata: GGUFMetadata) -> dict[str, Any]:
    """``Qwen3ForCausalLM``."""
    return {**_qwen_config(metadata, "Qwen3ForCausalLM", "qwen3"), "attention_bias": False}


def qwen3_moe_config(metadata: GGUFMetadata) -> dict[str, Any]:
    """``Qwen3MoeForCausalLM``: every layer has experts, and the weights of the chosen ones add up to one."""
    return {
        **_qwen_config(metadata, "Qwen3MoeForCausalLM", "qwen3_moe"),
        "attention_bias": False,
        "num_experts": int(metadata.require("expert_count")),
        "num_experts_per_tok": int(metadata.require("expert_used_count")),
        "moe_intermediate_size": int(metadata.require("expert_feed_forward_length")),
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


def _qwen_config(metadata: GGUFMetadata, architecture: str, model_type: str) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        **dense_config(metadata),
        "rope_scaling": rope_scaling(metadata),
        "use_sliding_window": False,
        "sliding_window": None,
    }
