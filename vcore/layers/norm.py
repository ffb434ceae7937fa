"""Normalisation layers, and where a sublayer has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from vcore.interfaces.model import BuildContext
from vcore.layers.layer_norm import LayerNorm
from vcore.layers.parallel import require_collective
from vcore.layers.weights import PartitionedModule, WeightPart, parameter
from vcore.ops.rms_norm import add_rms_norm, rms_norm

__all__ = ["HeadsRMSNorm", "NormStyle", "RMSNorm", "ResidualBlock"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NormStyle:
    """Which norms an architecture has around each of its sublayers."""

    eps: float
    before: bool = True
    """A norm in front of the sublayer: what most architectures have (pre-norm)."""
    after: bool = False
    """A norm on what the sublayer gives, before it is added to the residual stream."""
    unit_offset: bool = False
    """Norms multiply by one plus their weight, in float32, as Gemma's do."""
    kind: Literal["rms", "layer"] = "rms"
    """By the root mean square, or by mean and variance: `RMSNorm` or `LayerNorm`."""
    bias: bool = True
    """Whether layer norms add one; RMS norms never do."""

    def build(self, context: BuildContext, size: int) -> RMSNorm | LayerNorm:
        """A norm of this style over `size` features."""
        if self.kind == "layer":
            return LayerNorm(context, size, self.eps, bias=self.bias, unit_offset=self.unit_offset)
        return RMSNorm(context, size, self.eps, unit_offset=self.unit_offset)


class RMSNorm(PartitionedModule):
    """Root mean square normalisation that also carries the residual stream."""

    def __init__(self, context: BuildContext, size: int, eps: float, *, unit_offset: bool = False) -> None:
        """Args:
        context: the device and dtype to build for.
        size: features that are normalised together.
        eps: added to the mean square.
        unit_offset: multiply by one plus the checkpoint's weight; the sum is kept in float32.
        """
        super().__init__()
        self.eps = eps
        self._offset = 1.0 if unit_offset else 0.0
        self.weight = parameter((size,), torch.float32 if unit_offset else context.dtype, context.device)

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Args:
            x: [num_tokens, size], what the last block adds to the residual stream; the stream itself if
                `residual` is None.
            residual: [num_tokens, size], the stream before it; neither is changed.

        Returns:
            The normalised stream, and the stream.
        """
        if residual is None:
            return rms_norm(x, self.weight, self.eps), x
        return add_rms_norm(x, residual, self.weight, self.eps)

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        """The norm alone: [..., size] to the same."""
        return rms_norm(x, self.weight, self.eps)

    def weight_parts(self, parameter_name: str) -> Sequence[WeightPart]:
        """The weight, whole on each rank."""
        return (WeightPart(tuple(self.weight.shape)),)

    def weights_loaded(self) -> None:
        if self._offset:
            self.weight.add_(self._offset)


class HeadsRMSNorm(PartitionedModule):
    """Root mean square normalisation over all heads of a token at once, with the heads split over the ranks."""

    def __init__(self, context: BuildContext, num_heads: int, head_dim: int, eps: float) -> None:
        """Args:
        context: the device, dtype and ranks to build for.
        num_heads: over all ranks; with more ranks than heads, each head is kept by several.
        head_dim: features of a head.
        eps: added to the mean square.
        """
        super().__init__()
        self.eps = eps
        self._size = num_heads * head_dim
        self._copies = max(1, context.tp_size // num_heads)
        share = max(1, num_heads // context.tp_size) * head_dim
        self._first = context.tp_rank // self._copies * share
        self._is_split = context.tp_size > 1
        self._collective = require_collective(context)
        self.weight = parameter((share,), context.dtype, context.device)

    def normalize(self, heads: torch.Tensor) -> torch.Tensor:
        """[num_tokens, this rank's heads, head_dim] to the same."""
        x = heads.flatten(1)  # [num_tokens, heads * head_dim]
        if not self._is_split:
            return rms_norm(x, self.weight, self.eps).view(heads.shape)
        x = x.float()
        squares = self._collective.all_reduce(x.square().sum(-1, keepdim=True))
        x = x * (squares / (self._size * self._copies) + self.eps).rsqrt() * self.weight
        return x.to(heads.dtype).view(heads.shape)

    def weight_parts(self, parameter_name: str) -> Sequence[WeightPart]:
        """This rank's features."""
        if not self._is_split:
            return (WeightPart((self._size,)),)
        return (WeightPart((self._size,), (slice(self._first, self._first + self.weight.shape[0]),)),)


class ResidualBlock(nn.Module):
    """A sublayer from the residual stream to what it adds to it. Subclasses compute between `enter` and `leave`.

    Parameters: ``norm`` in front, ``post_norm`` behind, as far as the style has them. What a block returns is
    not yet added to the stream: the next block's norm does that in the same pass.
    """

    def __init__(self, context: BuildContext, hidden_size: int, norms: NormStyle) -> None:
        super().__init__()
        self.norm = norms.build(context, hidden_size) if norms.before else None
        self.post_norm = norms.build(context, hidden_size) if norms.after else None

    def enter(self, x: torch.Tensor, residual: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Args:
            x: [num_tokens, hidden_size], to be added to the residual stream; the stream if `residual` is None.
            residual: [num_tokens, hidden_size], or None.

        Returns:
            What the sublayer computes on, and the stream; neither may be changed.
        """
        if self.norm is not None:
            normed: tuple[torch.Tensor, torch.Tensor] = self.norm(x, residual)
            return normed
        stream = x if residual is None else x + residual
        return stream, stream

    def leave(self, x: torch.Tensor) -> torch.Tensor:
        """What is added to the stream, of the sublayer's result `x`, [num_tokens, hidden_size]."""
        return x if self.post_norm is None else self.post_norm.normalize(x)
