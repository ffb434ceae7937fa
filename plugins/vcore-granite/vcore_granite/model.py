"""IBM Granite 3: Llama's shape, and four multipliers where maximal update parametrisation
(Yang et al., 2022, arXiv:2203.03466) puts them: on the embedding, on the scores of attention,
on what each block adds to the residual stream, and on the logits.
"""

from typing import ClassVar

import torch
from torch import nn
from vcore.interfaces import AttentionContext, BuildContext
from vcore.layers import (
    AttentionBlock,
    CausalLM,
    DecoderLayer,
    GatedMLP,
    NormStyle,
    RotaryEmbedding,
    WeightMap,
)


class GraniteForCausalLM(CausalLM):
    """The ``GraniteForCausalLM`` of Hugging Face checkpoints."""

    weight_map: ClassVar[WeightMap] = WeightMap(
        stacked={
            "qkv_proj": ("q_proj", "k_proj", "v_proj"),
            "gate_up_proj": ("gate_proj", "up_proj"),
        },
        rename={
            "self_attn.norm.": "input_layernorm.",
            "mlp.norm.": "post_attention_layernorm.",
        },
    )

    def __init__(self, *, options: None, context: BuildContext) -> None:
        config = context.config
        head_dim = config.hidden_size // config.num_attention_heads
        norms = NormStyle(eps=config.rms_norm_eps)

        def make_layer(layer_index: int) -> nn.Module:
            self_attn = AttentionBlock(
                context,
                layer_index,
                hidden_size=config.hidden_size,
                num_heads=config.num_attention_heads,
                num_kv_heads=config.num_key_value_heads,
                head_dim=head_dim,
                norms=norms,
                qkv_bias=config.get("attention_bias", False),
                o_bias=config.get("attention_bias", False),
                scale=config.attention_multiplier,
            )
            mlp = GatedMLP(
                context,
                hidden_size=config.hidden_size,
                intermediate_size=config.intermediate_size,
                norms=norms,
                activation=config.hidden_act,
                bias=config.get("mlp_bias", False),
            )
            return GraniteLayer(self_attn, mlp, config.residual_multiplier)

        super().__init__(
            context,
            make_layer=make_layer,
            norms=norms,
            rotary=RotaryEmbedding(context, head_dim),
            embedding_scale=config.embedding_multiplier,
        )
        self._logits_scaling: float = config.logits_scaling

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Logits [num_rows, vocab_size] of hidden states [num_rows, hidden_size]."""
        return super().compute_logits(hidden_states).div_(self._logits_scaling)


class GraniteLayer(DecoderLayer):
    """A decoder layer whose blocks add only a part of what they compute."""

    def __init__(self, self_attn: nn.Module, mlp: nn.Module, multiplier: float) -> None:
        super().__init__(self_attn, mlp)
        self._multiplier = multiplier

    def forward(
        self,
        x: torch.Tensor,
        residual: torch.Tensor | None,
        rotation: object,
        attn: AttentionContext,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the layer adds last to the residual stream, and the stream before that."""
        x, residual = self.self_attn(x, residual, rotation, attn)
        x, residual = self.mlp(x * self._multiplier, residual)
        return x * self._multiplier, residual
