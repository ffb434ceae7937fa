"""GGUF's ``phi3``: Phi-3 and Phi-4-mini."""

from __future__ import annotations

from typing import Any

from vcore_model_zoo.loaders.gguf_configs.dense import dense_config
from vcore_model_zoo.loaders.gguf_metadata import GGUFMetadata

__all__ = ["phi3_config"]

_LONG, _SHORT = "rope_factors_long.weight", "rope_factors_short.weight"


def phi3_config(metadata: GGUFMetadata) -> dict[str, Any]:
    """``Phi3ForCausalLM``."""
    config = dense_config(metadata, partial_rotary=True)
    head_dim = config.pop("head_dim")
    rotary_dim = int(metadata.get("rope.dimension_count", head_dim))
    original = metadata.get("rope.scaling.original_context_length", config["max_position_embeddings"])
    return {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        **config,
        "partial_rotary_factor": rotary_dim / head_dim,
        "original_max_position_embeddings": int(original),
        "rope_scaling": _long_rope(metadata),
        "sliding_window": metadata.get("attention.sliding_window") or None,
        "attention_bias": False,
    }


def _long_rope(metadata: GGUFMetadata) -> dict[str, Any] | None:
    """The factors of LongRoPE (Ding et al. 2024, arXiv:2402.13753), which the file stores as tensors."""
    if _LONG not in metadata.shapes:
        return None
    return {
        "rope_type": "longrope",
        "long_factor": metadata.tensor_values(_LONG),
        "short_factor": metadata.tensor_values(_SHORT),
    }
