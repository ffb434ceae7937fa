"""Llama (Touvron et al., 2023, arXiv:2302.13971; Llama 3, arXiv:2407.21783).

Grouped queries, rotary embedding with all scalings that `RotaryEmbedding` knows, tied or untied
embeddings, optional biases.
"""

from __future__ import annotations

from typing import ClassVar

from vcore.interfaces.model import BuildContext
from vcore.layers import AttentionBlock, CausalLM, DecoderLayer, GatedMLP, Heads, NormStyle, RotaryEmbedding, WeightMap

__all__ = ["LlamaForCausalLM"]


class LlamaForCausalLM(CausalLM):
    """The ``LlamaForCausalLM`` of Hugging Face checkpoints."""

    weight_map: ClassVar[WeightMap] = WeightMap(
        stacked={
            "qkv_proj": ("q_proj", "k_proj", "v_proj"),
            "gate_up_proj": ("gate_proj", "up_proj"),
        },
        rename={"self_attn.norm.": "input_layernorm.", "mlp.norm.": "post_attention_layernorm."},
        ignored=("*.rotary_emb.inv_freq",),
    )

    def __init__(self, *, options: None, context: BuildContext) -> None:
        """Raises:
        UnsupportedModelError: the config asks for another activation or an unknown rope scaling.
        """
        config = context.config
        norms = NormStyle(eps=config.rms_norm_eps)
        heads = Heads.from_config(config)

        def make_layer(layer_index: int) -> DecoderLayer:
            return DecoderLayer(
                AttentionBlock(
                    context,
                    layer_index,
                    hidden_size=config.hidden_size,
                    num_heads=heads.num_heads,
                    num_kv_heads=heads.num_kv_heads,
                    head_dim=heads.head_dim,
                    norms=norms,
                    qkv_bias=config.get("attention_bias", False),
                    o_bias=config.get("attention_bias", False),
                ),
                GatedMLP(
                    context,
                    hidden_size=config.hidden_size,
                    intermediate_size=config.intermediate_size,
                    norms=norms,
                    activation=config.get("hidden_act", "silu"),
                    bias=config.get("mlp_bias", False),
                ),
            )

        rotary = RotaryEmbedding(context, heads.head_dim)
        super().__init__(context, make_layer=make_layer, norms=norms, rotary=rotary)
