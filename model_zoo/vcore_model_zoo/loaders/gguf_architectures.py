"""The architectures that are read from GGUF files.

To add one: a function in `gguf_configs` from `GGUFMetadata` to the ``config.json`` of its Hugging Face class, and an
entry in `ARCHITECTURES` with its tensors. llama.cpp's ``convert_hf_to_gguf.py`` says what it does to them on the way;
where it changes values or their order, the entry undoes it.
"""

from __future__ import annotations

from collections.abc import Mapping

from vcore.errors import UnsupportedModelError
from vcore_model_zoo.loaders.gguf_architecture import DENSE_LAYER, GGUFArchitecture
from vcore_model_zoo.loaders.gguf_configs.gemma import gemma2_config, gemma3_config, gemma_config
from vcore_model_zoo.loaders.gguf_configs.llama import llama_config
from vcore_model_zoo.loaders.gguf_configs.olmo2 import olmo2_config
from vcore_model_zoo.loaders.gguf_configs.phi3 import phi3_config
from vcore_model_zoo.loaders.gguf_configs.qwen import qwen2_config, qwen3_config, qwen3_moe_config
from vcore_model_zoo.loaders.gguf_metadata import GGUFMetadata

__all__ = ["ARCHITECTURES", "find_architecture"]

_QK_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_NORMS_AROUND = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_GEMMA_LAYER = {**DENSE_LAYER, **_NORMS_AROUND, **_QK_NORMS}

ARCHITECTURES: Mapping[str, GGUFArchitecture] = {
    "gemma": GGUFArchitecture(config=gemma_config, norm_offset=1.0, ends=("<end_of_turn>",)),
    "gemma2": GGUFArchitecture(
        config=gemma2_config, layer_tensors=_GEMMA_LAYER, norm_offset=1.0, ends=("<end_of_turn>",)
    ),
    "gemma3": GGUFArchitecture(
        config=gemma3_config, layer_tensors=_GEMMA_LAYER, norm_offset=1.0, ends=("<end_of_turn>",)
    ),
    "llama": GGUFArchitecture(
        config=llama_config,
        layer_tensors={**DENSE_LAYER, "ffn_gate_inp": "block_sparse_moe.gate"},
        expert_tensors={
            "ffn_gate_exps": "block_sparse_moe.experts.{}.w1",
            "ffn_down_exps": "block_sparse_moe.experts.{}.w2",
            "ffn_up_exps": "block_sparse_moe.experts.{}.w3",
        },
        permuted={"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"},
        consumed=frozenset({"rope_freqs.weight"}),
    ),
    "olmo2": GGUFArchitecture(config=olmo2_config, layer_tensors={**DENSE_LAYER, **_NORMS_AROUND, **_QK_NORMS}),
    "phi3": GGUFArchitecture(
        config=phi3_config,
        layer_tensors={**DENSE_LAYER, "attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"},
        consumed=frozenset({"rope_factors_long.weight", "rope_factors_short.weight"}),
    ),
    "qwen2": GGUFArchitecture(config=qwen2_config),
    "qwen3": GGUFArchitecture(config=qwen3_config, layer_tensors={**DENSE_LAYER, **_QK_NORMS}),
    "qwen3moe": GGUFArchitecture(
        config=qwen3_moe_config,
        layer_tensors={**DENSE_LAYER, **_QK_NORMS, "ffn_gate_inp": "mlp.gate"},
        expert_tensors={
            "ffn_gate_exps": "mlp.experts.{}.gate_proj",
            "ffn_up_exps": "mlp.experts.{}.up_proj",
            "ffn_down_exps": "mlp.experts.{}.down_proj",
        },
    ),
}
"""By ``general.architecture``."""


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
