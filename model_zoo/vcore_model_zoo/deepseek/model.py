"""What DeepSeek-V2 and DeepSeek-V3 have in common: latent attention over dense layers, then layers of experts.

How tokens are routed to the experts is each version's own.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import nn

from vcore.errors import UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import BuildContext
from vcore.layers import (
    CausalLM,
    DecoderLayer,
    GatedMLP,
    MLAAttention,
    MoEBlock,
    NormStyle,
    RotaryEmbedding,
    Routing,
    WeightMap,
    check_sizes,
)
from vcore.layers.rope_scaling import RopeParameters

__all__ = ["DeepseekForCausalLM", "score_scale"]


class DeepseekForCausalLM(CausalLM):
    """The skeleton of both versions. A subclass says how tokens are routed."""

    weight_map: ClassVar[WeightMap] = WeightMap(
        stacked={
            "q_kv_a_proj": ("q_a_proj", "kv_a_proj_with_mqa"),
            "gate_up_proj": ("gate_proj", "up_proj"),
            "gate_up_experts": ("{expert}.gate_proj", "{expert}.up_proj"),
            "down_experts": ("{expert}.down_proj",),
        },
        rename={
            "self_attn.norm.": "input_layernorm.",
            "mlp.norm.": "post_attention_layernorm.",
            "experts.routing.": "gate.",
        },
        ignored=("*.rotary_emb.inv_freq",),
    )

    def __init__(self, *, options: None, context: BuildContext) -> None:
        """Raises:
        UnsupportedModelError: the config asks for an activation, a rope scaling or a routing that is not known.
        """
        config = context.config
        if config.get("mlp_bias"):
            raise UnsupportedModelError(
                f"{config.origin} has mlp_bias=true, but this architecture's feed-forward networks are served without "
                "biases only."
            )
        check_sizes(config, qk_nope_head_dim=config.qk_nope_head_dim, qk_rope_head_dim=config.qk_rope_head_dim)
        norms = NormStyle(eps=config.rms_norm_eps)

        def make_layer(layer_index: int) -> DecoderLayer:
            if has_experts(config, layer_index):
                return DecoderLayer(_attention(context, layer_index, norms), self._experts(context, norms))
            return DecoderLayer(_attention(context, layer_index, norms), _dense(context, norms))

        # DeepSeek's pairs of rotary features are neighbours; a converted checkpoint says so if its are not.
        interleaved = config.get("rope_interleave", True)
        rotary = RotaryEmbedding(context, config.qk_rope_head_dim, interleaved=interleaved)
        super().__init__(context, make_layer=make_layer, norms=norms, rotary=rotary)

    @classmethod
    @abstractmethod
    def make_routing(cls, context: BuildContext) -> Routing:
        """The routing of one layer.

        Raises:
            UnsupportedModelError: the config asks for one that this version does not have.
        """

    @classmethod
    def _experts(cls, context: BuildContext, norms: NormStyle) -> MoEBlock:
        config = context.config
        num_shared = config.get("n_shared_experts") or 0
        wanted = ("n_routed_experts", "num_experts_per_tok", "moe_intermediate_size")
        optional = [key for key in ("n_group", "topk_group") if config.get(key) is not None]
        shared = ["n_shared_experts"] if num_shared else []
        check_sizes(config, **{key: getattr(config, key) for key in (*wanted, *optional, *shared)})
        return MoEBlock(
            context,
            hidden_size=config.hidden_size,
            num_experts=config.n_routed_experts,
            intermediate_size=config.moe_intermediate_size,
            routing=cls.make_routing(context),
            norms=norms,
            activation=config.get("hidden_act", "silu"),
            # Several shared experts are one of their joint size, in checkpoints too.
            shared_intermediate_size=num_shared * config.moe_intermediate_size if num_shared else None,
            router_dtype=torch.float32,
        )


def has_experts(config: HFConfig, layer_index: int) -> bool:
    """Whether a layer's feed-forward network is one of experts: every ``moe_layer_freq``-th is, but for the first
    ``first_k_dense_replace``.

    Raises:
        UnsupportedModelError: these are no whole numbers.
    """
    first, step = config.get("first_k_dense_replace") or 0, config.get("moe_layer_freq") or 1
    check_sizes(config, moe_layer_freq=step)
    if first:
        check_sizes(config, first_k_dense_replace=first)
    return bool(config.get("n_routed_experts")) and layer_index >= first and layer_index % step == 0


def score_scale(context: BuildContext) -> float:
    """What attention scores are multiplied by: ``(qk_nope_head_dim + qk_rope_head_dim) ** -0.5``, and with YaRN,
    that and ``(0.1 mscale_all_dim ln(factor) + 1) ** 2``.

    YaRN divides scores by a temperature t, with ``sqrt(1 / t) = 0.1 ln(factor) + 1`` (arXiv:2309.00071, equation
    22), by a factor on cos and sin. Here only some features of a head are turned, so the factor goes on the score as
    a whole; for latent attention it was found to be 0.0707 (DeepSeek-V2, arXiv:2405.04434, section 3.1.4). The rotary
    embedding then has the ratio of ``mscale`` to ``mscale_all_dim`` alone, which is one in all published models.
    """
    config = context.config
    scale = float((config.qk_nope_head_dim + config.qk_rope_head_dim) ** -0.5)
    rope = RopeParameters.from_config(config, config.qk_rope_head_dim, context.max_model_len)
    mscale = rope.scaling.get("mscale_all_dim")
    if rope.rope_type == "default" or not mscale:
        return scale
    factor = rope.number("factor")
    temperature = 0.1 * rope.number("mscale_all_dim") * math.log(factor) + 1.0 if factor > 1 else 1.0
    return scale * temperature**2


def _attention(context: BuildContext, layer_index: int, norms: NormStyle) -> MLAAttention:
    config = context.config
    return MLAAttention(
        context,
        layer_index,
        hidden_size=config.hidden_size,
        num_heads=config.num_attention_heads,
        q_lora_rank=config.get("q_lora_rank"),
        kv_lora_rank=config.kv_lora_rank,
        qk_nope_head_dim=config.qk_nope_head_dim,
        qk_rope_head_dim=config.qk_rope_head_dim,
        v_head_dim=config.v_head_dim,
        norms=norms,
        bias=config.get("attention_bias", False),
        scale=score_scale(context),
    )


def _dense(context: BuildContext, norms: NormStyle) -> nn.Module:
    config = context.config
    return GatedMLP(
        context,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        norms=norms,
        activation=config.get("hidden_act", "silu"),
    )


def require(config: HFConfig, key: str, expected: str) -> None:
    """Raises:
    UnsupportedModelError: the config has something else than `expected` for `key`, or than nothing.
    """
    found = config.get(key) or expected
    if found != expected:
        raise UnsupportedModelError(
            f"{config.origin} has {key}={found!r}, but this architecture is served with {expected!r} only."
        )
