"""From GGUF's terms to Hugging Face's, by architecture: configuration keys and tensor names.

To add one: a function from `GGUFMetadata` to the ``config.json`` of its Hugging Face class, and an entry in
`ARCHITECTURES` with its tensors. `DENSE_LAYER` holds the names that most decoders share.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vcore.errors import UnsupportedModelError
from vcore_model_zoo.loaders.gguf_metadata import GGUFMetadata

__all__ = ["ARCHITECTURES", "GGUFArchitecture", "find_architecture"]

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")

DENSE_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
DENSE_MODEL = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


@dataclass(frozen=True, slots=True, kw_only=True)
class GGUFArchitecture:
    """How one value of ``general.architecture`` is read."""

    config: Callable[[GGUFMetadata], dict[str, Any]]
    """The contents of ``config.json``."""
    model_tensors: Mapping[str, str] = field(default_factory=lambda: DENSE_MODEL)
    """Names outside the layers, without ``.weight`` and ``.bias``."""
    layer_tensors: Mapping[str, str] = field(default_factory=lambda: DENSE_LAYER)
    """Names within a layer."""
    permuted: Mapping[str, str] = field(default_factory=dict)
    """Layer tensors whose rows llama.cpp reorders for its rotary embedding, with the config key that counts their
    heads."""
    consumed: frozenset[str] = frozenset()
    """Tensors that the configuration takes in, and the model has no place for."""

    def hf_name(self, name: str) -> str | None:
        """The Hugging Face name of tensor `name`; None if it is consumed. Unknown names stay as they are."""
        if name in self.consumed:
            return None
        stem, _, kind = name.rpartition(".")
        block = _BLOCK.fullmatch(stem)
        if block is None:
            mapped = self.model_tensors.get(stem)
            return name if mapped is None else f"{mapped}.{kind}"
        mapped = self.layer_tensors.get(block[2])
        return name if mapped is None else f"model.layers.{block[1]}.{mapped}.{kind}"

    def heads_key(self, name: str) -> str | None:
        """The config key that counts the heads of a tensor with reordered rows; None if the rows are in order."""
        block = _BLOCK.fullmatch(name.rpartition(".")[0])
        return None if block is None else self.permuted.get(block[2])


def find_architecture(metadata: GGUFMetadata) -> GGUFArchitecture:
    """The entry for a file.

    Raises:
        UnsupportedModelError: there is none.
    """
    known = ARCHITECTURES.get(metadata.architecture)
    if known is None:
        raise UnsupportedModelError(
            f"{metadata.origin} is of architecture {metadata.architecture!r}; from GGUF files, vcore reads "
            f"{', '.join(sorted(ARCHITECTURES))}. Use the model's safetensors files instead, if a model plugin serves "
            "it (vcore plugins list), or a weight loader plugin that reads this one."
        )
    return known


def llama_config(metadata: GGUFMetadata) -> dict[str, Any]:
    """``LlamaForCausalLM``.

    Raises:
        UnsupportedModelError: the file uses what that class does not have, such as experts.
    """
    if metadata.get("expert_count", 0):
        raise UnsupportedModelError(
            f"{metadata.origin} is a mixture of {metadata.get('expert_count')} experts; of GGUF's llama architecture, "
            "vcore reads dense models. Use the model's safetensors files instead."
        )
    config = _dense_config(metadata)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **config,
        "attention_bias": "blk.0.attn_q.bias" in metadata.shapes,
        "mlp_bias": "blk.0.ffn_up.bias" in metadata.shapes,
        "rope_scaling": _rope_scaling(metadata, config),
    }


def _dense_config(metadata: GGUFMetadata) -> dict[str, Any]:
    """The keys that dense decoders share."""
    heads = metadata.uniform("attention.head_count")
    hidden = int(metadata.require("embedding_length"))
    head_dim = int(metadata.get("attention.key_length", hidden // heads))
    _require_equal(metadata, "attention.value_length", head_dim)
    _require_equal(metadata, "rope.dimension_count", head_dim)
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
    }


def _require_equal(metadata: GGUFMetadata, key: str, expected: int) -> None:
    value = metadata.get(key, expected)
    if value != expected:
        raise UnsupportedModelError(
            f"{metadata.origin}: {metadata.architecture}.{key} is {value}, and vcore reads files where it is the "
            f"head dimension, {expected}. Use the model's safetensors files instead."
        )


def _rope_scaling(metadata: GGUFMetadata, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """``rope_scaling``: from the keys ``rope.scaling.*``, or from the tensor of factors that Llama 3.1 brought."""
    if "rope_freqs.weight" in metadata.shapes:
        return _llama3_scaling(metadata, config)
    kind = metadata.get("rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise UnsupportedModelError(
            f"{metadata.origin}: rope.scaling.type is {kind!r}; vcore reads none, linear and yarn from GGUF. "
            "Use the model's safetensors files instead."
        )
    scaling = {"rope_type": kind, "factor": float(metadata.require("rope.scaling.factor"))}
    original = metadata.get("rope.scaling.original_context_length")
    if kind == "yarn" and original is not None:
        scaling["original_max_position_embeddings"] = int(original)
    return scaling


def _llama3_scaling(metadata: GGUFMetadata, config: Mapping[str, Any]) -> dict[str, Any]:
    """Which ``llama3`` scaling gives the frequency factors that the file stores.

    All released models use the same bounds; the factor is the largest of the stored ones. The result is compared
    with what is stored, so that a model with other bounds is refused and not computed wrongly.

    Raises:
        UnsupportedModelError: no such scaling gives these factors.
    """
    stored = metadata.tensor_values("rope_freqs.weight")
    scaling = {
        "rope_type": "llama3",
        "factor": float(max(stored)),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    expected = _llama3_factors(scaling, config["head_dim"], config["rope_theta"])
    if len(stored) != len(expected) or not all(map(_nearly_equal, stored, expected)):
        raise UnsupportedModelError(
            f"{metadata.origin} stores rotary frequency factors that are not those of Llama 3's scaling with factor "
            f"{scaling['factor']:g}. Use the model's safetensors files, whose config.json states the scaling."
        )
    return scaling


def _nearly_equal(stored: float, expected: float) -> bool:
    return math.isclose(stored, expected, rel_tol=1e-3)


def _llama3_factors(scaling: Mapping[str, Any], head_dim: int, theta: float) -> list[float]:
    """By how much each rotary frequency is divided (Grattafiori et al. 2024, "The Llama 3 Herd of Models")."""
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    original = scaling["original_max_position_embeddings"]
    factors = []
    for pair in range(head_dim // 2):
        wavelength = 2 * math.pi * theta ** (2 * pair / head_dim)
        smooth = min(max((original / wavelength - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / factor + smooth))
    return factors


ARCHITECTURES: Mapping[str, GGUFArchitecture] = {
    "llama": GGUFArchitecture(
        config=llama_config,
        permuted={"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"},
        consumed=frozenset({"rope_freqs.weight"}),
    ),
}
"""By ``general.architecture``."""
