"""Phi-3, Phi-3.5 and Phi-4 (Abdin et al., 2024, arXiv:2404.14219 and arXiv:2412.08905).

Llama with the projections of attention and of the gate joined in the checkpoint, LongRoPE for long contexts, and,
in some sizes, a sliding window or rotation of a part of each head.
"""

from __future__ import annotations

from typing import ClassVar

from vcore.interfaces.model import BuildContext
from vcore.layers import AttentionBlock, CausalLM, DecoderLayer, GatedMLP, Heads, NormStyle, RotaryEmbedding, WeightMap

__all__ = ["Phi3ForCausalLM"]


class Phi3ForCausalLM(CausalLM):
    """The ``Phi3ForCausalLM`` of Hugging Face checkpoints."""

    weight_map: ClassVar[WeightMap] = WeightMap(
        stacked={"qkv_proj": ("qkv_proj",), "gate_up_proj": ("gate_up_proj",)},
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
                    sliding_window=config.get("sliding_window"),
                ),
                GatedMLP(
                    context,
                    hidden_size=config.hidden_size,
                    intermediate_size=config.intermediate_size,
                    norms=norms,
                    activation=config.get("hidden_act", "silu"),
                ),
            )

        rotary = RotaryEmbedding(context, heads.head_dim)
        super().__init__(context, make_layer=make_layer, norms=norms, rotary=rotary)
