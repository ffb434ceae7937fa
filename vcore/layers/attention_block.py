"""`AttentionBlock`: one layer's self-attention, from the norm to the residual stream."""

from __future__ import annotations

import torch
from torch import nn

from vcore.interfaces.attention import AttentionContext, LayerSpec
from vcore.interfaces.model import BuildContext
from vcore.layers.attention import Attention
from vcore.layers.linear import QKVParallelLinear, RowParallelLinear
from vcore.layers.norm import RMSNorm
from vcore.layers.rotary import Rotation

__all__ = ["AttentionBlock"]


class AttentionBlock(nn.Module):
    """Norm, joined QKV projection, rotation, attention, output projection.

    Parameters: ``norm``, ``qkv_proj``, ``o_proj``. What it returns is not yet added to the residual stream:
    the next block's norm does that in the same pass.
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
        norm_eps: float,
        qkv_bias: bool = False,
        o_bias: bool = False,
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
        norm_eps: of the norm.
        qkv_bias: whether the QKV projections have a bias.
        o_bias: whether the output projection has one.
        scale: of the scores; None means ``head_dim ** -0.5``.
        sliding_window: see `LayerSpec`.
        soft_cap: see `LayerSpec`.

        Raises:
            ConfigError: the heads cannot be split over the ranks.
        """
        super().__init__()
        self.norm = RMSNorm(context, hidden_size, norm_eps)
        self.qkv_proj = QKVParallelLinear(context, hidden_size, num_heads, num_kv_heads, head_dim, qkv_bias)
        self.o_proj = RowParallelLinear(context, num_heads * head_dim, hidden_size, o_bias)
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

    def forward(
        self, x: torch.Tensor, residual: torch.Tensor | None, rotation: Rotation, attn: AttentionContext
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Args:
            x: [num_tokens, hidden_size], to be added to the residual stream; the stream if `residual` is None.
            residual: [num_tokens, hidden_size], or None.
            rotation: the step's angles.
            attn: the step's plan and caches.

        Returns:
            What this block adds to the stream, and the stream before it.
        """
        num_heads, num_kv_heads, _ = self._head_counts
        x, residual = self.norm(x, residual)
        heads = self.qkv_proj(x).unflatten(-1, (-1, self._head_dim))  # [num_tokens, q, k and v heads, head_dim]
        rotation.apply_(heads[:, : num_heads + num_kv_heads])  # queries and keys at once
        q, k, v = heads.split(self._head_counts, 1)
        return self.o_proj(self.attention(q, k, v, attn).flatten(1)), residual
