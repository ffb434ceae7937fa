"""Qwen3, the dense models (Yang et al., 2025, arXiv:2505.09388).

Qwen2 with norms over each head of queries and keys in place of their biases, and heads of a size of their own.
"""

from __future__ import annotations

from typing import ClassVar

from vcore.interfaces.model import BuildContext
from vcore.layers import AttentionBlock, CausalLM, DecoderLayer, GatedMLP, Heads, NormStyle, RotaryEmbedding, WeightMap
from vcore_model_zoo.qwen.windows import sliding_windows

__all__ = ["Qwen3ForCausalLM"]


class Qwen3ForCausalLM(CausalLM):
    """The ``Qwen3ForCausalLM`` of Hugging Face checkpoints."""

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
        windows = sliding_windows(config)

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
                    qk_norm="head",
                    sliding_window=windows[layer_index],
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
