"""Gemma (Gemma Team, 2024, arXiv:2403.08295, section 2): Llama's shape with larger heads and a GeLU gate.

Embedded tokens are multiplied by the root of their size, norms by one plus their weight.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import BuildContext
from vcore.layers import AttentionBlock, CausalLM, DecoderLayer, GatedMLP, Heads, NormStyle, RotaryEmbedding, WeightMap
from vcore_model_zoo.gemma.config import activation, complete, embedding_scale

__all__ = ["GemmaForCausalLM"]

_DEFAULTS = {"head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "tie_word_embeddings": True}


class GemmaForCausalLM(CausalLM):
    """The ``GemmaForCausalLM`` of Hugging Face checkpoints."""

    weight_map: ClassVar[WeightMap] = WeightMap(
        stacked={
            "qkv_proj": ("q_proj", "k_proj", "v_proj"),
            "gate_up_proj": ("gate_proj", "up_proj"),
        },
        rename={"self_attn.norm.": "input_layernorm.", "mlp.norm.": "post_attention_layernorm."},
        ignored=("*.rotary_emb.inv_freq",),
    )

    @classmethod
    def complete_config(cls, config: HFConfig) -> HFConfig:
        """With what the checkpoint leaves out."""
        return complete(config, _DEFAULTS)

    def __init__(self, *, options: None, context: BuildContext) -> None:
        """Raises:
        UnsupportedModelError: the config asks for what Gemma has not, or lacks what it needs.
        """
        config = self.complete_config(context.config)
        context = replace(context, config=config)
        heads = Heads.from_config(config)
        norms = NormStyle(eps=config.rms_norm_eps, unit_offset=True)

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
                    activation=activation(config),
                ),
            )

        super().__init__(
            context,
            make_layer=make_layer,
            norms=norms,
            rotary=RotaryEmbedding(context, heads.head_dim),
            embedding_scale=embedding_scale(config),
        )
