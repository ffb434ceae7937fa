"""What a GGUF file says of embeddings, which ``config.json`` has no place for."""

from __future__ import annotations

from typing import Any

from vcore_model_zoo.loaders.gguf_metadata import GGUFMetadata

__all__ = ["embedding_config"]

_POOLING = {0: "none", 1: "mean", 2: "cls", 3: "lasttoken", 4: "rank"}
"""``ARCHITECTURE.pooling_type``, in llama.cpp's ``llama_pooling_type``; the names are sentence-transformers'."""


def embedding_config(metadata: GGUFMetadata) -> dict[str, Any]:
    """``embedding_pooling`` if the file says how hidden states become a vector; ``is_causal`` if it says that tokens
    see those behind them."""
    config: dict[str, Any] = {}
    pooling = metadata.get("pooling_type")
    if pooling is not None:
        config["embedding_pooling"] = _POOLING.get(pooling, f"pooling_type {pooling}")
    if metadata.get("attention.causal") is False:
        config["is_causal"] = False
    return config
