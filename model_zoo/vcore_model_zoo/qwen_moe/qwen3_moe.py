"""Qwen3, the mixture-of-experts models (Yang et al., 2025, arXiv:2505.09388, section 2).

Norms over each head of queries and keys; many small experts, none of them shared.
"""

from __future__ import annotations

from typing import ClassVar

from vcore.interfaces.model import BuildContext
from vcore.layers import (
    AttentionBlock,
    CausalLM,
    DecoderLayer,
    GatedMLP,
    Heads,
    MoEBlock,
    NormStyle,
    RotaryEmbedding,
    SoftmaxRouting,
    WeightMap,
)
from vcore_model_zoo.qwen_moe.sparse_layers import check_experts, is_sparse

__all__ = ["Qwen3MoeForCausalLM"]


class Qwen3MoeForCausalLM(CausalLM):
    """The ``Qwen3MoeForCausalLM`` of Hugging Face checkpoints."""

    weight_map: ClassVar[WeightMap] = WeightMap(
        stacked={
            "qkv_proj": ("q_proj", "k_proj", "v_proj"),
            "gate_up_proj": ("gate_proj", "up_proj"),
            "gate_up_experts": ("{expert}.gate_proj", "{expert}.up_proj"),
            "down_experts": ("{expert}.down_proj",),
        },
        rename={"self_attn.norm.": "input_layernorm.", "mlp.norm.": "post_attention_layernorm."},
        ignored=("*.rotary_emb.inv_freq",),
    )

    def __init__(self, *, options: None, context: BuildContext) -> None:
        """Raises:
        UnsupportedModelError: the config asks for another activation, an unknown rope scaling, or more experts a
            token than there are.
        """
        config = context.config
        norms = NormStyle(eps=config.rms_norm_eps)
        heads = Heads.from_config(config)
        num_experts = check_experts(config)
        activation = config.get("hidden_act", "silu")

        def make_attention(layer_index: int) -> AttentionBlock:
            return AttentionBlock(
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
                sliding_window=config.get("sliding_window") if config.get("use_sliding_window", False) else None,
            )

        def make_mlp(layer_index: int) -> MoEBlock | GatedMLP:
            if not is_sparse(config, layer_index):
                return GatedMLP(
                    context,
                    hidden_size=config.hidden_size,
                    intermediate_size=config.intermediate_size,
                    norms=norms,
                    activation=activation,
                )
            return MoEBlock(
                context,
                hidden_size=config.hidden_size,
                num_experts=num_experts,
                intermediate_size=config.moe_intermediate_size,
                routing=SoftmaxRouting(config.num_experts_per_tok, renormalize=config.get("norm_topk_prob", False)),
                norms=norms,
                activation=activation,
            )

        super().__init__(
            context,
            make_layer=lambda layer_index: DecoderLayer(make_attention(layer_index), make_mlp(layer_index)),
            norms=norms,
            rotary=RotaryEmbedding(context, heads.head_dim),
        )
