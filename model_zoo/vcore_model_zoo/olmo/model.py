"""OLMo 2 (OLMo Team, 2024, arXiv:2501.00656, section 3.2).

Norms stand behind attention and feed-forward network instead of in front, and queries and keys are normalised over
all heads at once.
"""

from __future__ import annotations

from typing import ClassVar

from vcore.interfaces.model import BuildContext
from vcore.layers import AttentionBlock, CausalLM, DecoderLayer, GatedMLP, Heads, NormStyle, RotaryEmbedding, WeightMap

__all__ = ["Olmo2ForCausalLM"]


class Olmo2ForCausalLM(CausalLM):
    """The ``Olmo2ForCausalLM`` of Hugging Face checkpoints."""

    weight_map: ClassVar[WeightMap] = WeightMap(
        stacked={
            "qkv_proj": ("q_proj", "k_proj", "v_proj"),
            "gate_up_proj": ("gate_proj", "up_proj"),
        },
        rename={
            "self_attn.post_norm.": "post_attention_layernorm.",
            "mlp.post_norm.": "post_feedforward_layernorm.",
        },
    )

    def __init__(self, *, options: None, context: BuildContext) -> None:
        """Raises:
        UnsupportedModelError: the config asks for another activation or an unknown rope scaling.
        """
        config = context.config
        norms = NormStyle(eps=config.rms_norm_eps, before=False, after=True)
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
                    qk_norm="all_heads",
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
