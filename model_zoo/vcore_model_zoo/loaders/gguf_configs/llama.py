"""GGUF's ``llama``: Llama itself, Mistral (whose window tells it) and Mixtral (whose experts do)."""

from __future__ import annotations

from typing import Any

from vcore_model_zoo.loaders.gguf_configs.dense import dense_config
from vcore_model_zoo.loaders.gguf_configs.rope_scaling import llama3_scaling, rope_scaling
from vcore_model_zoo.loaders.gguf_metadata import GGUFMetadata

__all__ = ["llama_config"]


def llama_config(metadata: GGUFMetadata) -> dict[str, Any]:
    """``LlamaForCausalLM``, ``MistralForCausalLM`` or ``MixtralForCausalLM``."""
    config = dense_config(metadata)
    if "rope_freqs.weight" in metadata.shapes:
        config["rope_scaling"] = llama3_scaling(metadata, config)
    else:
        config["rope_scaling"] = rope_scaling(metadata)
    window = metadata.get("attention.sliding_window")
    if metadata.get("expert_count", 0):
        return {
            "architectures": ["MixtralForCausalLM"],
            "model_type": "mixtral",
            **config,
            "sliding_window": window,
            "num_local_experts": int(metadata.require("expert_count")),
            "num_experts_per_tok": int(metadata.require("expert_used_count")),
        }
    if window is not None:
        return {"architectures": ["MistralForCausalLM"], "model_type": "mistral", **config, "sliding_window": window}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **config,
        "attention_bias": "blk.0.attn_q.bias" in metadata.shapes,
        "mlp_bias": "blk.0.ffn_up.bias" in metadata.shapes,
    }
