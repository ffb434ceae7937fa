"""GGUF's ``olmo2``."""

from __future__ import annotations

from typing import Any

from vcore_model_zoo.loaders.gguf_configs.dense import dense_config
from vcore_model_zoo.loaders.gguf_configs.rope_scaling import rope_scaling
from vcore_model_zoo.loaders.gguf_metadata import GGUFMetadata

__all__ = ["olmo2_config"]


def olmo2_config(metadata: GGUFMetadata) -> dict[str, Any]:
    """``Olmo2ForCausalLM``."""
    return {
        "architectures": ["Olmo2ForCausalLM"],
        "model_type": "olmo2",
        **dense_config(metadata),
        "rope_scaling": rope_scaling(metadata),
        "attention_bias": False,
    }
