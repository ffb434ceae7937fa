"""Gemma 3 (Gemma Team, 2025, arXiv:2503.19786, section 2), the language model.

Five layers with a sliding window to one that sees everything, each kind with rotary frequencies of its own;
queries and keys are normalised; the norms are Gemma 2's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import nn

from vcore.interfaces.attention import AttentionContext
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import BuildContext
from vcore.layers import (
    FULL,
    SLIDING,
    AttentionBlock,
    CausalLM,
    DecoderLayer,
    GatedMLP,
    Heads,
    NormStyle,
    RotaryEmbedding,
    Rotation,
    WeightMap,
)
from vcore_model_zoo.gemma.config import (
    activation,
    alternating_types,
    complete,
    embedding_scale,
    score_scale,
    soft_cap,
    split_rope,
)

__all__ = ["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"]

_DEFAULTS: dict[str, Any] = {
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "max_position_embeddings": 131_072,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-6,
    "rope_local_base_freq": 10_000.0,
    "rope_theta": 1_000_000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
    "vocab_size": 262_208,
}


class Gemma3ForCausalLM(CausalLM):
    """The ``Gemma3ForCausalLM`` of Hugging Face checkpoints."""

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
        return split_rope(complete(config, _DEFAULTS))

    def __init__(self, *, options: None, context: BuildContext) -> None:
        """Raises:
        UnsupportedModelError: the config asks for what Gemma 3 has not, or lacks what it needs.
        """
        config = self.complete_config(context.config)
        context = replace(context, config=config)
        heads = Heads.from_config(config)
        norms = NormStyle(eps=config.rms_norm_eps, after=True, unit_offset=True)
        types = alternating_types(config, period=6)

        def make_layer(layer_index: int) -> nn.Module:
            attention = AttentionBlock(
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
                scale=score_scale(config),
                sliding_window=config.sliding_window if types[layer_index] == SLIDING else None,
            )
            mlp = GatedMLP(
                context,
                hidden_size=config.hidden_size,
                intermediate_size=config.intermediate_size,
                norms=norms,
                activation=activation(config),
            )
            return Gemma3Layer(attention, mlp, types[layer_index])

        super().__init__(
            context,
            make_layer=make_layer,
            norms=norms,
            rotary=RotaryByLayerType(context, heads.head_dim),
            embedding_scale=embedding_scale(config),
            logits_soft_cap=soft_cap(config, "final_logit_softcapping"),
        )


class Gemma3ForConditionalGeneration(Gemma3ForCausalLM):
    """The language model of checkpoints that also take images. Their vision tower is not loaded."""

    weight_map: ClassVar[WeightMap] = replace(
        Gemma3ForCausalLM.weight_map,
        rename={**Gemma3ForCausalLM.weight_map.rename, "model.": "language_model.model."},
        ignored=("*vision_tower.*", "*multi_modal_projector.*"),
    )


class RotaryByLayerType(nn.Module):
    """Angles for each type of layer."""

    def __init__(self, context: BuildContext, head_dim: int) -> None:
        super().__init__()
        self.by_type = nn.ModuleDict(
            {layer_type: RotaryEmbedding(context, head_dim, layer_type=layer_type) for layer_type in (FULL, SLIDING)}
        )

    def forward(self, positions: torch.Tensor) -> dict[str, Rotation]:
        """By layer type, the angles of int64 [num_tokens] `positions`."""
        return {layer_type: rotary(positions) for layer_type, rotary in self.by_type.items()}


class Gemma3Layer(DecoderLayer):
    """A layer that takes, of the step's rotations, that of its type."""

    def __init__(self, self_attn: nn.Module, mlp: nn.Module, layer_type: str) -> None:
        super().__init__(self_attn, mlp)
        self._layer_type = layer_type

    def forward(
        self, x: torch.Tensor, residual: torch.Tensor | None, rotation: object, attn: AttentionContext
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `DecoderLayer.forward`; `rotation` is what `RotaryByLayerType` gives."""
        assert isinstance(rotation, dict)
        return super().forward(x, residual, rotation[self._layer_type], attn)
