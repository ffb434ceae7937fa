"""Rotary position embedding as a layer: tables of cos and sin, looked up once a step for all layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from vcore.interfaces.model import BuildContext
from vcore.layers.rope_scaling import RopeParameters, rope_frequencies
from vcore.ops.rotary import apply_rotary_

__all__ = ["RotaryEmbedding", "Rotation"]


@dataclass(frozen=True, slots=True)
class Rotation:
    """One step's angles. Attention layers apply it to their queries and keys."""

    cos: torch.Tensor
    """float32 [num_tokens, 1, rotary_dim / 2]."""
    sin: torch.Tensor
    """The same."""
    interleaved: bool

    def apply_(self, x: torch.Tensor) -> None:
        """Turn `x`, [num_tokens, num_heads, head_dim], in place."""
        apply_rotary_(x, self.cos, self.sin, self.interleaved)


class RotaryEmbedding(nn.Module):
    """The angles of every position up to ``max_model_len``, in float32."""

    cos_sin: torch.Tensor
    """float32 [max_model_len, rotary_dim]: cos in the first half, sin in the second."""

    def __init__(
        self, context: BuildContext, head_dim: int, interleaved: bool = False, *, layer_type: str | None = None
    ) -> None:
        """Args:
        context: its config says which scaling.
        head_dim: features of a head.
        interleaved: pairs are neighbours (GPT-J) instead of halves (GPT-NeoX, Llama).
        layer_type: which type of layer it is for, in models where they differ: see `RopeParameters.from_config`.

        Raises:
            UnsupportedModelError: the scaling is not known, or lacks a number.
        """
        super().__init__()
        self._interleaved = interleaved
        parameters = RopeParameters.from_config(context.config, head_dim, context.max_model_len, layer_type)
        frequencies = rope_frequencies(parameters)
        # On the CPU, so that every device has the same angles to the last bit. A model on `meta` is only described.
        length = 0 if context.device.type == "meta" else context.max_model_len
        positions = torch.arange(length, dtype=torch.float32, device="cpu")
        angles = positions[:, None] * frequencies.inv_freq  # [max_model_len, rotary_dim / 2]
        table = torch.cat((angles.cos(), angles.sin()), dim=-1).mul_(frequencies.attention_factor)
        self.register_buffer("cos_sin", table.to(context.device), persistent=False)

    def forward(self, positions: torch.Tensor) -> Rotation:
        """The angles of int64 [num_tokens] `positions`, each below ``max_model_len``."""
        rows = self.cos_sin.index_select(0, positions).unsqueeze(1)  # [num_tokens, 1, rotary_dim]
        cos, sin = rows.chunk(2, -1)
        return Rotation(cos, sin, self._interleaved)
