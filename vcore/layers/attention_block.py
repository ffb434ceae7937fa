"""`AttentionBlock`: one layer's self-attention, from the norm to the residual stream."""

from __future__ import annotations

from typing import Literal

import torch

from vcore.interfaces.attention import AttentionContext, LayerSpec
from vcore.interfaces.model import BuildContext
from vcore.layers.attention import Attention
from vcore.layers.config_checks import check_head_groups, check_sizes
from vcore.layers.layer_norm import LayerNorm
from vcore.layers.linear import QKVParallelLinear, RowParallelLinear
from vcore.layers.norm import HeadsRMSNorm, NormStyle, ResidualBlock, RMSNorm
from vcore.layers.rotary import Rotation
from vcore.ops.qk_norm_rope_write import qk_norm_rope_write_

__all__ = ["AttentionBlock"]


class AttentionBlock(ResidualBlock):
    """Norm, joined QKV projection, norms of queries and keys, rotation, attention, output projection.

    Parameters: ``norm``, ``post_norm``, ``qkv_proj``, ``q_norm``, ``k_norm``, ``o_proj``, as far as asked for.
    """

    def __init__(
        self,
        context: BuildContext,
        layer_index: int,
        *,
        hidden_size: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        norms: NormStyle,
        qkv_bias: bool = False,
        o_bias: bool = False,
        qk_norm: Literal["head", "all_heads"] | None = None,
        scale: float | None = None,
        sliding_window: int | None = None,
        soft_cap: float | None = None,
    ) -> None:
        """Args:
        context: the device, dtype, ranks and backend to build for.
        layer_index: this layer's place in `AttentionContext.layer_caches`.
        hidden_size: size of the residual stream.
        num_heads: query heads over all ranks.
        num_kv_heads: key-value heads over all ranks.
        head_dim: features of a head.
        norms: which norms there are, and of what kind.
        qkv_bias: whether the QKV projections have a bias.
        o_bias: whether the output projection has one.
        qk_norm: whether queries and keys are normalised before they are turned: each head for itself, or all
            heads of a token together, which is an RMS norm always.
        scale: of the scores; None means ``head_dim ** -0.5``.
        sliding_window: see `LayerSpec`.
        soft_cap: see `LayerSpec`.

        Raises:
            ConfigError: the heads cannot be split over the ranks.
            UnsupportedModelError: a size is no whole number above zero, or the query heads cannot be shared out
                evenly between the key-value heads.
        """
        check_head_groups(context.config, num_heads, num_kv_heads)
        check_sizes(context.config, hidden_size=hidden_size, head_dim=head_dim)
        if sliding_window is not None:
            check_sizes(context.config, sliding_window=sliding_window)
        super().__init__(context, hidden_size, norms)
        self.qkv_proj = QKVParallelLinear(context, hidden_size, num_heads, num_kv_heads, head_dim, qkv_bias)
        self.o_proj = RowParallelLinear(context, num_heads * head_dim, hidden_size, o_bias)
        self.q_norm: RMSNorm | LayerNorm | HeadsRMSNorm | None = None
        self.k_norm: RMSNorm | LayerNorm | HeadsRMSNorm | None = None
        if qk_norm == "head":
            self.q_norm, self.k_norm = norms.build(context, head_dim), norms.build(context, head_dim)
        elif qk_norm == "all_heads":
            self.q_norm = HeadsRMSNorm(context, num_heads, head_dim, norms.eps)
            self.k_norm = HeadsRMSNorm(context, num_kv_heads, head_dim, norms.eps)
        spec = LayerSpec(
            num_heads=self.qkv_proj.num_heads,
            num_kv_heads=self.qkv_proj.num_kv_heads,
            head_dim=head_dim,
            scale=head_dim**-0.5 if scale is None else scale,
            sliding_window=sliding_window,
            soft_cap=soft_cap,
        )
        self.attention = Attention(context, layer_index, spec)
        self._head_dim = head_dim
        self._head_counts = (spec.num_heads, spec.num_kv_heads, spec.num_kv_heads)
        can_fuse = self.q_norm is None or isinstance(self.q_norm, RMSNorm)
        self._fuses_write = context.fused_write and self.attention.writes_cache and can_fuse

    def forward(
        self, x: torch.Tensor, residual: torch.Tensor | None, rotation: Rotation | None, attn: AttentionContext
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Args:
            x: [num_tokens, hidden_size], to be added to the residual stream; the stream if `residual` is None.
            residual: [num_tokens, hidden_size], or None.
            rotation: the step's angles; None for a layer without positions.
            attn: the step's plan and caches.

        Returns:
            What this block adds to the stream, and the stream before it.
        """
        x, residual = self.enter(x, residual)
        if self._fuses_write and rotation is not None:
            q, k, v = self._project_and_write(x, rotation, attn)
            out = self.attention.attend(q, k, v, attn)
        else:
            q, k, v = self._project(x, rotation)
            out = self.attention(q, k, v, attn)
        return self.leave(self.o_proj(out.flatten(1))), residual

    def _project_and_write(
        self, x: torch.Tensor, rotation: Rotation, attn: AttentionContext
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `_project`; the keys and values are written into the cache by the same kernel."""
        heads = self.qkv_proj(x).unflatten(-1, (-1, self._head_dim))
        q_norm, k_norm = self.q_norm, self.k_norm
        qk_norm_rope_write_(
            heads,
            None if q_norm is None else q_norm.weight,
            None if k_norm is None else k_norm.weight,
            0.0 if q_norm is None else q_norm.eps,
            rotation.cos,
            rotation.sin,
            rotation.interleaved,
            *self.attention.destination(heads, attn),
        )
        q, k, v = heads.split(self._head_counts, 1)
        return q, k, v

    def _project(self, x: torch.Tensor, rotation: Rotation | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values, [num_tokens, heads, head_dim] each."""
        num_heads, num_kv_heads, _ = self._head_counts
        heads = self.qkv_proj(x).unflatten(-1, (-1, self._head_dim))  # [num_tokens, q, k and v heads, head_dim]
        if self.q_norm is None or self.k_norm is None:
            if rotation is not None:
                rotation.apply_(heads[:, : num_heads + num_kv_heads])  # queries and keys at once
            q, k, v = heads.split(self._head_counts, 1)
            return q, k, v
        q, k, v = heads.split(self._head_counts, 1)
        q, k = self.q_norm.normalize(q), self.k_norm.normalize(k)
        if rotation is not None:
            rotation.apply_(q)
            rotation.apply_(k)
        return q, k, v
