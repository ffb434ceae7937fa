"""Gemma 2 (Gemma Team, 2024, arXiv:2408.00118, section 2).

Every other layer looks back over a sliding window only; each sublayer has a norm in front and one behind;
the scores of attention and the logits are capped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import BuildContext
from vcore.layers import (
    SLIDING,
    AttentionBlock,
    CausalLM,
    DecoderLayer,
    GatedMLP,
    Heads,
    NormStyle,
    RotaryEmbedding,
    WeightMap,
)
from vcore_model_zoo.gemma.config import activation, alternating_types, complete, embedding_scale, score_scale, soft_cap

__all__ = ["Gemma2ForCausalLM"]

_DEFAULTS: dict[str, Any] = {
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-6,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}


class Gemma2ForCausalLM(CausalLM):
    """The ``Gemma2ForCausalLM`` of Hugging Face checkpoints."""

    weight_map: ClassVar[WeightMap] = WeightMap(
        stacked={
            "qkv_proj": ("q_proj", "k_proj", "v_proj"),
            "gate_up_proj": ("gate_proj", "up_proj"),
        },
        rename={
            "self_attn.norm.": "input_layernorm.",
            "self_attn.post_norm.": "post_attention_layernorm.",
            "mlp.norm.": "pre_feedforward_layernorm.",
            "mlp.post_norm.": "post_feedforward_layernorm.",
        },
        ignored=("*.rotary_emb.inv_freq",),
    )

    @classmethod
    def complete_config(cls, config: HFConfig) -> HFConfig:
        """With what the checkpoint leaves out."""
        return complete(config, _DEFAULTS)

    def __init__(self, *, options: None, context: BuildContext) -> None:
        """Raises:
        UnsupportedModelError: the config asks for what Gemma 2 has not, or lacks what it needs.
        """
        config = self.complete_config(context.config)
        context = replace(context, config=config)
        heads = Heads.from_config(config)
        norms = NormStyle(eps=config.rms_norm_eps, after=True, unit_offset=True)
        types = alternating_types(config, period=2)

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
                    scale=score_scale(config),
                    sliding_window=config.sliding_window if types[layer_index] == SLIDING else None,
                    soft_cap=soft_cap(config, "attn_logit_softcapping"),
                ),
                GatedMLP(
                    context,
                    hidden_size=config.hidden_size,
                    intermediate_size=config.intermediate_size,
                    norms=norms,
                    activation=activation(config),
                ),
            )

        super().__init__(
            context,
            make_layer=make_layer,
            norms=norms,
            rotary=RotaryEmbedding(context, heads.head_dim),
            embedding_scale=embedding_scale(config),
            logits_soft_cap=soft_cap(config, "final_logit_softcapping"),
        )
