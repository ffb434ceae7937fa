"""Qwen2 and Qwen2.5 (Yang et al., 2024, arXiv:2407.10671 and arXiv:2412.15115).

Llama with biases on queries, keys and values, and, where the config switches it on, a sliding window in some layers.
"""

from __future__ import annotations

from typing import ClassVar

from vcore.interfaces.model import BuildContext
from vcore.layers import AttentionBlock, CausalLM, DecoderLayer, GatedMLP, Heads, NormStyle, RotaryEmbedding, WeightMap
from vcore_model_zoo.qwen.windows import sliding_windows

__all__ = ["Qwen2ForCausalLM"]


class Qwen2ForCausalLM(CausalLM):
    """The ``Qwen2ForCausalLM`` of Hugging Face checkpoints."""

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
                    qkv_bias=True,
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
