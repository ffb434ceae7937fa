"""Operations that layers are made of: each a torch reference, and by device a fused kernel in its place."""

from __future__ import annotations

from vcore.ops.dispatch import Op, op
from vcore.ops.gated_linear import gated_linear
from vcore.ops.gelu_tanh_and_mul import gelu_tanh_and_mul
from vcore.ops.kv_write import kv_write
from vcore.ops.latent_heads import absorb_queries, latent_values
from vcore.ops.latent_norm_rope_write import latent_norm_rope_write_
from vcore.ops.latent_write import latent_write
from vcore.ops.linear import linear, pack_linear_weight
from vcore.ops.merge_attention import merge_attention_
from vcore.ops.moe import fused_experts
from vcore.ops.qk_norm_rope_write import qk_norm_rope_write_
from vcore.ops.rms_norm import add_rms_norm, rms_norm
from vcore.ops.rotary import apply_rotary_
from vcore.ops.routing import softmax_top_k, uniform_top_k
from vcore.ops.silu_and_mul import silu_and_mul
from vcore.ops.wide_linear import wide_linear

__all__ = [
    "Op",
    "absorb_queries",
    "add_rms_norm",
    "apply_rotary_",
    "fused_experts",
    "gated_linear",
    "gelu_tanh_and_mul",
    "kv_write",
    "latent_norm_rope_write_",
    "latent_values",
    "latent_write",
    "linear",
    "merge_attention_",
    "op",
    "pack_linear_weight",
    "qk_norm_rope_write_",
    "rms_norm",
    "silu_and_mul",
    "softmax_top_k",
    "uniform_top_k",
    "wide_linear",
]
