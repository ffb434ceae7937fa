"""GGUF's ``gemma``, ``gemma2`` and ``gemma3``; what all released models share, the files leave to the reader."""

from __future__ import annotations

from typing import Any

from vcore_model_zoo.loaders.gguf_configs.dense import dense_config
from vcore_model_zoo.loaders.gguf_configs.rope_scaling import rope_scaling
from vcore_model_zoo.loaders.gguf_metadata import GGUFMetadata

__all__ = ["gemma2_config", "gemma3_config", "gemma_config"]

_LOCAL_THETA = 10000.0
"""The rotary base of Gemma 3's sliding layers (Gemma Team 2025, arXiv:2503.19786, section 2)."""
_GEMMA2_PATTERN, _GEMMA3_PATTERN = 2, 6
"""Every so many layers one sees everything; the others have a window."""
_GEMMA2_27B_LAYERS, _GEMMA3_27B_LAYERS = 46, 62
"""The largest models, told by their depth as llama.cpp tells them, scale queries by another number."""


def gemma_config(metadata: GGUFMetadata) -> dict[str, Any]:
    """``GemmaForCausalLM``, the first."""
    return {"architectures": ["GemmaForCausalLM"], "model_type": "gemma", **_common(metadata)}


def gemma2_config(metadata: GGUFMetadata) -> dict[str, Any]:
    """``Gemma2ForCausalLM``."""
    config = _windowed(metadata, _GEMMA2_PATTERN, _GEMMA2_27B_LAYERS)
    return {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        **config,
        "attn_logit_softcapping": metadata.get("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": metadata.get("final_logit_softcapping", 30.0),
    }


def gemma3_config(metadata: GGUFMetadata) -> dict[str, Any]:
    """``Gemma3ForCausalLM``, the text part. Rotary embedding is said as transformers 5 does and as it was before."""
    config = _windowed(metadata, _GEMMA3_PATTERN, _GEMMA3_27B_LAYERS)
    scaling = rope_scaling(metadata)
    local = metadata.get("rope.freq_base_swa", _LOCAL_THETA)
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        **config,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", **(scaling or {}), "rope_theta": config["rope_theta"]},
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        },
        "rope_local_base_freq": local,
        "rope_scaling": scaling,
        "sliding_window_pattern": _GEMMA3_PATTERN,
        "final_logit_softcapping": metadata.get("final_logit_softcapping"),
    }


def _common(metadata: GGUFMetadata) -> dict[str, Any]:
    config = {key: value for key, value in dense_config(metadata).items() if key != "hidden_act"}
    return {**config, "hidden_activation": "gelu_pytorch_tanh", "attention_bias": False}


def _windowed(metadata: GGUFMetadata, pattern: int, largest: int) -> dict[str, Any]:
    """What Gemma 2 and 3 share."""
    config = _common(metadata)
    heads, layers = config["num_attention_heads"], config["num_hidden_layers"]
    return {
        **config,
        "query_pre_attn_scalar": config["hidden_size"] // heads if layers == largest else config["head_dim"],
        "sliding_window": int(metadata.require("attention.sliding_window")),
        "layer_types": [
            "full_attention" if (layer + 1) % pattern == 0 else "sliding_attention" for layer in range(layers)
        ],
    }
