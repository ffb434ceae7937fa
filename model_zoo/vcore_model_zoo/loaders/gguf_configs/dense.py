"""The keys of ``config.json`` that dense decoders share."""

from __future__ import annotations

from typing import Any

from vcore.errors import UnsupportedModelError
from vcore_model_zoo.loaders.gguf_metadata import GGUFMetadata

__all__ = ["dense_config", "require_equal"]


def dense_config(metadata: GGUFMetadata, *, partial_rotary: bool = False) -> dict[str, Any]:
    """Sizes, norms, rotary base and special tokens.

    Args:
        metadata: of the file.
        partial_rotary: whether part of a head may go without rotary embedding; the caller reads how much.

    Raises:
        UnsupportedModelError: layers differ, or head dimensions do.
        WeightsError: a key is missing.
    """
    heads = metadata.uniform("attention.head_count")
    hidden = int(metadata.require("embedding_length"))
    head_dim = int(metadata.get("attention.key_length", hidden // heads))
    require_equal(metadata, "attention.value_length", head_dim)
    if not partial_rotary:
        require_equal(metadata, "rope.dimension_count", head_dim)
    return {
        "hidden_size": hidden,
        "intermediate_size": metadata.uniform("feed_forward_length"),
        "num_hidden_layers": int(metadata.require("block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.uniform("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": metadata.require("attention.layer_norm_rms_epsilon"),
        "rope_theta": metadata.get("rope.freq_base", 10000.0),
        "max_position_embeddings": int(metadata.require("context_length")),
        "vocab_size": metadata.shapes["token_embd.weight"][0],
        "tie_word_embeddings": "output.weight" not in metadata.shapes,
        "torch_dtype": "bfloat16",
        "bos_token_id": metadata.lookup("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.lookup("tokenizer.ggml.eos_token_id"),
        "pad_token_id": metadata.lookup("tokenizer.ggml.padding_token_id"),
    }


def require_equal(metadata: GGUFMetadata, key: str, expected: int) -> None:
    """Check that `key` is the head dimension, or is not there.

    Raises:
        UnsupportedModelError: it is something else.
    """
    value = metadata.get(key, expected)
    if value != expected:
        raise UnsupportedModelError(
            f"{metadata.origin}: {metadata.architecture}.{key} is {value}, and vcore reads files where it is the "
            f"head dimension, {expected}. Use the model's safetensors files instead."
        )
