"""Llama (Touvron et al., 2023, arXiv:2302.13971; Llama 3, arXiv:2407.21783).

Grouped queries, rotary embedding with all scalings that `RotaryEmbedding` knows, tied or untied
embeddings, optional biases. Module names are those of Hugging Face checkpoints, except for what
`LlamaForCausalLM.weight_map` declares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from vcore.errors import UnsupportedModelError
from vcore.interfaces.attention import AttentionContext
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import BuildContext, Model
from vcore.interfaces.weights import CheckpointReader
from vcore.kv_cache.spec import KVCacheSpec
from vcore.layers import (
    AttentionBlock,
    GatedMLP,
    LMHead,
    RMSNorm,
    RotaryEmbedding,
    Rotation,
    VocabParallelEmbedding,
    WeightMap,
    collect_kv_cache_specs,
    load_weights,
)

__all__ = ["LlamaForCausalLM"]


class LlamaDecoderLayer(nn.Module):
    """Self-attention, then a gated feed-forward network."""

    def __init__(self, context: BuildContext, layer_index: int) -> None:
        super().__init__()
        config = context.config
        self.self_attn = AttentionBlock(
            context,
            layer_index,
            hidden_size=config.hidden_size,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.get("num_key_value_heads") or config.num_attention_heads,
            head_dim=_head_dim(config),
            norm_eps=config.rms_norm_eps,
            qkv_bias=config.get("attention_bias", False),
            o_bias=config.get("attention_bias", False),
        )
        self.mlp = GatedMLP(
            context,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            norm_eps=config.rms_norm_eps,
            bias=config.get("mlp_bias", False),
        )

    def forward(
        self, x: torch.Tensor, residual: torch.Tensor | None, rotation: Rotation, attn: AttentionContext
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x, residual = self.self_attn(x, residual, rotation, attn)
        x, residual = self.mlp(x, residual)
        return x, residual


class LlamaModel(nn.Module):
    """Everything below the LM head."""

    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        config = context.config
        self.embed_tokens = VocabParallelEmbedding(context, config.vocab_size, config.hidden_size)
        self.rotary = RotaryEmbedding(context, _head_dim(config))
        self.layers = nn.ModuleList(
            LlamaDecoderLayer(context, layer_index) for layer_index in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(context, config.hidden_size, config.rms_norm_eps)

    def forward(self, x: torch.Tensor, positions: torch.Tensor, attn: AttentionContext) -> torch.Tensor:
        rotation: Rotation = self.rotary(positions)
        residual: torch.Tensor | None = None
        for layer in self.layers:
            x, residual = layer(x, residual, rotation, attn)
        x, _ = self.norm(x, residual)
        return x


class LlamaForCausalLM(Model):
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
        super().__init__()
        config = context.config
        activation = config.get("hidden_act", "silu")
        if activation != "silu":
            raise UnsupportedModelError(
                f"{config.origin} asks for hidden_act {activation!r}, but Llama's feed-forward layers here have "
                f"'silu' only. The model needs a model plugin of its own."
            )
        self.model = LlamaModel(context)
        tied = self.model.embed_tokens if config.get("tie_word_embeddings", False) else None
        self.lm_head = LMHead(context, config.vocab_size, config.hidden_size, tied=tied)

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        attn: AttentionContext,
        intermediate: torch.Tensor | None = None,
    ) -> torch.Tensor:
        x = self.model.embed_tokens(input_ids) if intermediate is None else intermediate
        hidden_states: torch.Tensor = self.model(x, positions, attn)
        return hidden_states

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.lm_head(hidden_states)
        return logits

    def load_weights(self, checkpoint: CheckpointReader) -> None:
        load_weights(self, checkpoint, self.weight_map)

    def kv_cache_specs(self) -> Sequence[KVCacheSpec]:
        return collect_kv_cache_specs(self)


def _head_dim(config: HFConfig) -> int:
    return int(config.get("head_dim") or config.hidden_size // config.num_attention_heads)
