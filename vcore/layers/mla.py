"""`MLAAttention`: one layer's multi-head latent attention, from the norm to the residual stream."""

from __future__ import annotations

import torch

from vcore.interfaces.attention import AttentionContext, LatentSpec
from vcore.interfaces.model import BuildContext
from vcore.layers.config_checks import check_sizes
from vcore.layers.kv_up_projection import KVUpProjection
from vcore.layers.latent_attention import LatentAttention
from vcore.layers.latent_prefill import WORKSPACE_TOKENS
from vcore.layers.linear import ColumnParallelLinear, ReplicatedLinear, RowParallelLinear
from vcore.layers.norm import NormStyle, ResidualBlock, RMSNorm
from vcore.layers.parallel import rank_share
from vcore.layers.rotary import Rotation
from vcore.ops.latent_norm_rope_write import latent_norm_rope_write_

__all__ = ["MLAAttention"]


class MLAAttention(ResidualBlock):
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1 and appendix C).

    Of a token h, the cache keeps the latent ``c = W_DKV h`` (equation 9), normalised, and the rotary key
    ``k_R = RoPE(W_KR h)`` (equation 15), and nothing a head. Heads see keys ``[W_UK c; k_R]`` (equations 10 and 17)
    and values ``W_UV c`` (equation 11). Queries come from h, or, with `q_lora_rank`, from a latent of their own
    (equations 12 to 14).

    The heads are split over the ranks; the projections to latents, and the cache, are whole on each.

    Parameters: ``norm``, ``post_norm`` (as far as asked for), ``kv_a_layernorm``, ``kv_b_proj``, ``o_proj``, and
    without `q_lora_rank` ``q_proj`` and ``kv_a_proj_with_mqa``; with it ``q_kv_a_proj``, which joins ``q_a_proj`` and
    ``kv_a_proj_with_mqa``, ``q_a_layernorm`` and ``q_b_proj``.
    """

    def __init__(
        self,
        context: BuildContext,
        layer_index: int,
        *,
        hidden_size: int,
        num_heads: int,
        q_lora_rank: int | None,
        kv_lora_rank: int,
        qk_nope_head_dim: int,
        qk_rope_head_dim: int,
        v_head_dim: int,
        norms: NormStyle,
        latent_norm_eps: float = 1e-6,
        bias: bool = False,
        scale: float | None = None,
        workspace_tokens: int = WORKSPACE_TOKENS,
    ) -> None:
        """Args:
        context: the device, dtype, ranks and backend to build for.
        layer_index: this layer's place in `AttentionContext.layer_caches`.
        hidden_size: size of the residual stream.
        num_heads: over all ranks.
        q_lora_rank: features of the latent of queries; None if there is none.
        kv_lora_rank: features of the latent of keys and values.
        qk_nope_head_dim: features of a query and key head without position.
        qk_rope_head_dim: features with position.
        v_head_dim: features of a value head.
        norms: which norms there are around the layer, and of what kind.
        latent_norm_eps: of the norms of both latents.
        bias: whether the projections to latents and the output projection have one.
        scale: of the scores; None means ``(qk_nope_head_dim + qk_rope_head_dim) ** -0.5``.
        workspace_tokens: most cached tokens that are projected up at a time.

        Raises:
            ConfigError: the heads cannot be split over the ranks.
            UnsupportedModelError: a size is no whole number above zero.
        """
        check_sizes(
            context.config,
            hidden_size=hidden_size,
            num_attention_heads=num_heads,
            kv_lora_rank=kv_lora_rank,
            qk_nope_head_dim=qk_nope_head_dim,
            qk_rope_head_dim=qk_rope_head_dim,
            v_head_dim=v_head_dim,
        )
        if q_lora_rank is not None:
            check_sizes(context.config, q_lora_rank=q_lora_rank)
        super().__init__(context, hidden_size, norms)
        qk_head_dim = qk_nope_head_dim + qk_rope_head_dim
        self._spec = spec = LatentSpec(
            num_heads=rank_share(num_heads, context, "attention heads"),
            kv_lora_rank=kv_lora_rank,
            qk_nope_head_dim=qk_nope_head_dim,
            qk_rope_head_dim=qk_rope_head_dim,
            v_head_dim=v_head_dim,
            scale=qk_head_dim**-0.5 if scale is None else scale,
        )
        self._q_lora_rank = q_lora_rank
        if q_lora_rank is None:
            self.q_proj = ColumnParallelLinear(context, hidden_size, num_heads * qk_head_dim)
            self.kv_a_proj_with_mqa = ReplicatedLinear(context, hidden_size, spec.latent_dim, bias)
        else:
            self.q_kv_a_proj = ReplicatedLinear(context, hidden_size, (q_lora_rank, spec.latent_dim), bias)
            self.q_a_layernorm = RMSNorm(context, q_lora_rank, latent_norm_eps)
            self.q_b_proj = ColumnParallelLinear(context, q_lora_rank, num_heads * qk_head_dim)
        self.kv_a_layernorm = RMSNorm(context, kv_lora_rank, latent_norm_eps)
        self.kv_b_proj = KVUpProjection(context, spec)
        self.o_proj = RowParallelLinear(context, num_heads * v_head_dim, hidden_size, bias)
        self.attention = LatentAttention(context, layer_index, spec, workspace_tokens=workspace_tokens)

    def forward(
        self, x: torch.Tensor, residual: torch.Tensor | None, rotation: Rotation, attn: AttentionContext
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Args:
            x: [num_tokens, hidden_size], to be added to the residual stream; the stream if `residual` is None.
            residual: [num_tokens, hidden_size], or None.
            rotation: the step's angles, of `qk_rope_head_dim` features.
            attn: the step's plan and caches.

        Returns:
            What this block adds to the stream, and the stream before it.
        """
        x, residual = self.enter(x, residual)
        q, latent = self._project(x)
        latent_norm_rope_write_(
            latent,
            q[..., self._spec.qk_nope_head_dim :],
            self.kv_a_layernorm.weight,
            self.kv_a_layernorm.eps,
            rotation.cos,
            rotation.sin,
            rotation.interleaved,
            *self.attention.destination(attn),
        )
        heads = self.attention(q, latent, self.kv_b_proj, attn)  # [num_tokens, num_heads, v_head_dim]
        return self.leave(self.o_proj(heads.flatten(1))), residual

    def _project(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries [num_tokens, num_heads, qk_head_dim] and latents [num_tokens, latent_dim], as they are projected."""
        if self._q_lora_rank is None:
            q, latent = self.q_proj(x), self.kv_a_proj_with_mqa(x)
        else:
            q_latent, latent = self.q_kv_a_proj(x).split(self.q_kv_a_proj.output_sizes, -1)
            q = self.q_b_proj(self.q_a_layernorm.normalize(q_latent))
        return q.unflatten(-1, (-1, self._spec.qk_head_dim)), latent
