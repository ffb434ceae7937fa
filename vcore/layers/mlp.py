"""`GatedMLP`: one layer's feed-forward network, from the norm to the residual stream."""

from __future__ import annotations

import torch
from torch import nn

from vcore.interfaces.model import BuildContext
from vcore.layers.linear import ColumnParallelLinear, RowParallelLinear
from vcore.layers.norm import RMSNorm
from vcore.ops.silu_and_mul import silu_and_mul

__all__ = ["GatedMLP"]


class GatedMLP(nn.Module):
    """Norm, joined gate and up projections, SiLU gate, down projection.

    Parameters: ``norm``, ``gate_up_proj``, ``down_proj``. What it returns is not yet added to the residual
    stream: the next norm does that in the same pass.
    """

    def __init__(
        self,
        context: BuildContext,
        *,
        hidden_size: int,
        intermediate_size: int,
        norm_eps: float,
        bias: bool = False,
    ) -> None:
        """Args:
        context: the device, dtype and ranks to build for.
        hidden_size: size of the residual stream.
        intermediate_size: of gate and up each, over all ranks.
        norm_eps: of the norm.
        bias: whether the three projections have one.

        Raises:
            ConfigError: the ranks do not divide `intermediate_size`.
        """
        super().__init__()
        self.norm = RMSNorm(context, hidden_size, norm_eps)
        self.gate_up_proj = ColumnParallelLinear(context, hidden_size, (intermediate_size, intermediate_size), bias)
        self.down_proj = RowParallelLinear(context, intermediate_size, hidden_size, bias)

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Args:
            x: [num_tokens, hidden_size], to be added to the residual stream; the stream if `residual` is None.
            residual: [num_tokens, hidden_size], or None.

        Returns:
            What this block adds to the stream, and the stream before it.
        """
        x, residual = self.norm(x, residual)
        return self.down_proj(silu_and_mul(self.gate_up_proj(x))), residual
