"""Layer norms, networks without a gate and blocks side by side, in architectures that need them: Starcoder 2 and
Cohere's Command R, as a reader of docs/add_a_model.md composes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from vcore.interfaces.attention import AttentionContext
from vcore.interfaces.model import BuildContext
from vcore.layers import (
    MLP,
    AttentionBlock,
    CausalLM,
    DecoderLayer,
    GatedMLP,
    Heads,
    NormStyle,
    RotaryEmbedding,
    WeightMap,
)
from vcore.plugins import ModelSpec, hookimpl
from vcore.testing import ModelContract

QKV = ("q_proj", "k_proj", "v_proj")


def attention(context: BuildContext, layer_index: int, norms: NormStyle, **keywords: Any) -> AttentionBlock:
    config, heads = context.config, Heads.from_config(context.config)
    return AttentionBlock(
        context,
        layer_index,
        hidden_size=config.hidden_size,
        num_heads=heads.num_heads,
        num_kv_heads=heads.num_kv_heads,
        head_dim=heads.head_dim,
        norms=norms,
        **keywords,
    )


class Starcoder2ForCausalLM(CausalLM):
    """Starcoder 2 (Lozhkov et al., 2024, arXiv:2402.19173)."""

    weight_map: ClassVar[WeightMap] = WeightMap(
        stacked={"qkv_proj": QKV, "up_proj": ("c_fc",), "down_proj": ("c_proj",)},
        rename={"self_attn.norm.": "input_layernorm.", "mlp.norm.": "post_attention_layernorm."},
    )

    def __init__(self, *, options: None, context: BuildContext) -> None:
        config, bias = context.config, context.config.use_bias
        norms = NormStyle(kind="layer", eps=config.norm_epsilon)

        def make_layer(layer_index: int) -> DecoderLayer:
            window = config.get("sliding_window")
            mlp = MLP(
                context,
                hidden_size=config.hidden_size,
                intermediate_size=config.intermediate_size,
                norms=norms,
                activation=config.hidden_act,
                bias=bias,
            )
            return DecoderLayer(
                attention(context, layer_index, norms, qkv_bias=bias, o_bias=bias, sliding_window=window), mlp
            )

        rotary = RotaryEmbedding(context, Heads.from_config(config).head_dim)
        super().__init__(context, make_layer=make_layer, norms=norms, rotary=rotary)


class CohereForCausalLM(CausalLM):
    """Command R: attention and feed-forward network side by side behind one norm, without biases."""

    weight_map: ClassVar[WeightMap] = WeightMap(
        stacked={"qkv_proj": QKV, "gate_up_proj": ("gate_proj", "up_proj")},
        rename={"layers.0.norm.": "layers.0.input_layernorm.", "layers.1.norm.": "layers.1.input_layernorm."},
    )

    def __init__(self, *, options: None, context: BuildContext) -> None:
        config = context.config
        norms = NormStyle(kind="layer", eps=config.layer_norm_eps, bias=False)
        none = NormStyle(eps=config.layer_norm_eps, before=False)

        def make_layer(layer_index: int) -> DecoderLayer:
            sizes = {"hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size}
            mlp = GatedMLP(context, **sizes, norms=none, activation=config.hidden_act)
            norm = norms.build(context, config.hidden_size)
            return SideBySide(attention(context, layer_index, none), mlp, norm)

        rotary = RotaryEmbedding(context, Heads.from_config(config).head_dim, interleaved=True)
        super().__init__(context, make_layer=make_layer, norms=norms, rotary=rotary)
        self._logit_scale: float = config.logit_scale

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return super().compute_logits(hidden_states).mul_(self._logit_scale)


class SideBySide(DecoderLayer):
    def __init__(self, self_attn: nn.Module, mlp: nn.Module, norm: nn.Module) -> None:
        super().__init__(self_attn, mlp)
        self.norm = norm

    def forward(
        self, x: torch.Tensor, residual: torch.Tensor | None, rotation: object, attn: AttentionContext
    ) -> tuple[torch.Tensor, torch.Tensor]:
        normed, stream = self.norm(x, residual)
        attended, _ = self.self_attn(normed, None, rotation, attn)
        transformed, _ = self.mlp(normed, None)
        return attended + transformed, stream


class Plugin:
    @hookimpl
    def vcore_models(self) -> Sequence[ModelSpec]:
        models = {"starcoder2": Starcoder2ForCausalLM, "cohere": CohereForCausalLM}
        return [
            ModelSpec(name=name, load=model, api="1.0", architectures=(model.__name__,))
            for name, model in models.items()
        ]


class TestStarcoder2(ModelContract):
    model_type = "starcoder2"
    plugins = (Plugin(),)
    overrides = {"use_bias": True, "sliding_window": 10, "hidden_act": "gelu"}


class TestCohere(ModelContract):
    model_type = "cohere"
    plugins = (Plugin(),)
    overrides = {"logit_scale": 0.5}
