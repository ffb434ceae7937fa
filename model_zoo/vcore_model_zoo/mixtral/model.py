"""Mixtral (Jiang et al., 2024, arXiv:2401.04088): Mistral with eight gated networks a layer, two of them a token."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import BuildContext
from vcore.layers import (
    AttentionBlock,
    CausalLM,
    DecoderLayer,
    Heads,
    MoEBlock,
    NormStyle,
    RotaryEmbedding,
    TopKSoftmaxRouting,
    WeightMap,
    check_sizes,
)

__all__ = ["MixtralForCausalLM"]


class MixtralForCausalLM(CausalLM):
    """The ``MixtralForCausalLM`` of Hugging Face checkpoints."""

    weight_map: ClassVar[WeightMap] = WeightMap(
        stacked={
            "qkv_proj": ("q_proj", "k_proj", "v_proj"),
            "gate_up_experts": ("{expert}.w1", "{expert}.w3"),
            "down_experts": ("{expert}.w2",),
        },
        rename={
            "self_attn.norm.": "input_layernorm.",
            "mlp.norm.": "post_attention_layernorm.",
            "mlp.": "block_sparse_moe.",
        },
        ignored=("*.rotary_emb.inv_freq",),
    )

    @classmethod
    def complete_config(cls, config: HFConfig) -> HFConfig:
        """With the rotary base of a config that says nothing."""
        return HFConfig({"rope_theta": 1e6, **config.to_dict()}, config.origin)

    def __init__(self, *, options: None, context: BuildContext) -> None:
        """Raises:
        UnsupportedModelError: the config asks for another activation, an unknown rope scaling, or more experts a
            token than there are.
        """
        config = self.complete_config(context.config)
        context = replace(context, config=config)
        norms = NormStyle(eps=config.rms_norm_eps)
        heads = Heads.from_config(config)
        check_sizes(config, num_local_experts=config.num_local_experts, num_experts_per_tok=config.num_experts_per_tok)

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
                MoEBlock(
                    context,
                    hidden_size=config.hidden_size,
                    num_experts=config.num_local_experts,
                    intermediate_size=config.intermediate_size,
                    routing=TopKSoftmaxRouting(config.num_experts_per_tok),
                    norms=norms,
                    activation=config.get("hidden_act", "silu"),
                ),
            )

        rotary = RotaryEmbedding(context, heads.head_dim)
        super().__init__(context, make_layer=make_layer, norms=norms, rotary=rotary)
