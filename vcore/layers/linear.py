"""Linear layers whose output or input features are split over the tensor-parallel ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from vcore.errors import ConfigError
from vcore.interfaces.model import BuildContext
from vcore.layers.parallel import rank_share, require_collective
from vcore.layers.weights import PartitionedModule, WeightPart, packed, parameter
from vcore.ops.gated_linear import gated_linear
from vcore.ops.linear import linear

__all__ = ["ColumnParallelLinear", "QKVParallelLinear", "ReplicatedLinear", "RowParallelLinear"]


@dataclass(frozen=True, slots=True)
class _OutputPart:
    """Some consecutive output features, one checkpoint tensor's."""

    total: int
    """Over all ranks."""
    start: int
    """This rank's first."""
    size: int
    """How many are this rank's."""


class _OutputSplitLinear(PartitionedModule):
    """Several linear layers on one input, joined into one matrix product."""

    def __init__(self, context: BuildContext, in_features: int, parts: Sequence[_OutputPart], bias: bool) -> None:
        super().__init__()
        self._in_features = in_features
        self._parts = tuple(parts)
        self.output_sizes = tuple(part.size for part in parts)
        """This rank's output features of each joined layer."""
        size = sum(self.output_sizes)
        self.weight = parameter((size, in_features), context.dtype, context.device)
        self.bias = parameter((size,), context.dtype, context.device) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in_features] to [..., sum(output_sizes)]: this rank's features, part after part."""
        return linear(x, self.weight, self.bias)

    def gated(self, x: torch.Tensor, gate: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """``gate`` of what `forward` gives, gate and up projections joined: [..., in_features] to half as many."""
        return gated_linear(x, self.weight, self.bias, gate)

    def weights_loaded(self) -> None:
        self.weight = packed(self.weight)

    def weight_parts(self, parameter_name: str) -> Sequence[WeightPart]:
        """One part a joined layer; each rank reads the rows that are its own."""
        inner = (self._in_features,) if parameter_name == "weight" else ()
        everything = tuple(slice(None) for _ in inner)
        found = []
        offset = 0
        for part in self._parts:
            source = (slice(part.start, part.start + part.size), *everything)
            found.append(
                WeightPart(
                    shape=(part.total, *inner),
                    source=None if part.size == part.total else source,
                    target=(slice(offset, offset + part.size),),
                )
            )
            offset += part.size
        return found


class ColumnParallelLinear(_OutputSplitLinear):
    """``x @ W.T + b`` with the output features split over the ranks; several such layers in one product."""

    def __init__(
        self, context: BuildContext, in_features: int, out_features: int | Sequence[int], bias: bool = False
    ) -> None:
        """Args:
        context: the device, dtype and ranks to build for.
        in_features: size of the input, whole on each rank.
        out_features: of the layer, or of each layer that is joined here, over all ranks.
        bias: whether the layers have one.

        Raises:
            ConfigError: the ranks do not divide the output features.
        """
        totals = (out_features,) if isinstance(out_features, int) else tuple(out_features)
        parts = []
        for total in totals:
            size = rank_share(total, context, "output features of a linear layer")
            parts.append(_OutputPart(total=total, start=context.tp_rank * size, size=size))
        super().__init__(context, in_features, parts, bias)


class ReplicatedLinear(_OutputSplitLinear):
    """``x @ W.T + b``, whole on each rank; several such layers in one product."""

    def __init__(
        self, context: BuildContext, in_features: int, out_features: int | Sequence[int], bias: bool = False
    ) -> None:
        """Args:
        context: the device and dtype to build for.
        in_features: size of the input.
        out_features: of the layer, or of each layer that is joined here.
        bias: whether the layers have one.
        """
        totals = (out_features,) if isinstance(out_features, int) else tuple(out_features)
        super().__init__(context, in_features, [_OutputPart(total, 0, total) for total in totals], bias)


class QKVParallelLinear(_OutputSplitLinear):
    """The query, key and value projections in one product, with the heads split over the ranks.

    With more ranks than key-value heads, each of these heads is kept by several ranks.
    """

    def __init__(
        self,
        context: BuildContext,
        hidden_size: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        bias: bool = False,
    ) -> None:
        """Args:
        context: the device, dtype and ranks to build for.
        hidden_size: size of the input, whole on each rank.
        num_heads: query heads over all ranks.
        num_kv_heads: key-value heads over all ranks.
        head_dim: features of a head.
        bias: whether the projections have one.

        Raises:
            ConfigError: the ranks do not divide the query heads, or neither divides the other for key-value heads.
        """
        share = rank_share(num_heads, context, "attention heads")
        kv_share, copies = _kv_heads_share(num_kv_heads, context)
        size, kv_size = share * head_dim, kv_share * head_dim
        query = _OutputPart(num_heads * head_dim, context.tp_rank * size, size)
        key_value = _OutputPart(num_kv_heads * head_dim, context.tp_rank // copies * kv_size, kv_size)
        super().__init__(context, hidden_size, (query, key_value, key_value), bias)
        self.num_heads = share
        """Query heads of this rank."""
        self.num_kv_heads = kv_share
        """Key-value heads of this rank."""


def _kv_heads_share(num_kv_heads: int, context: BuildContext) -> tuple[int, int]:
    """How many key-value heads this rank has, and how many ranks have the same ones."""
    if context.tp_size <= num_kv_heads:
        return rank_share(num_kv_heads, context, "key-value heads"), 1
    copies, rest = divmod(context.tp_size, num_kv_heads)
    if rest:
        raise ConfigError(
            f"tensor_parallel_size {context.tp_size} is no multiple of this model's {num_kv_heads} key-value "
            f"heads. Set runtime.tensor_parallel_size to a multiple or a divisor of {num_kv_heads}."
        )
    return 1, copies


class RowParallelLinear(PartitionedModule):
    """``x @ W.T + b`` with the input features split over the ranks; the ranks' results are summed."""

    def __init__(self, context: BuildContext, in_features: int, out_features: int, bias: bool = False) -> None:
        """Args:
        context: the device, dtype and ranks to build for.
        in_features: over all ranks; `forward` gets this rank's share of them.
        out_features: size of the output, whole on each rank.
        bias: whether the layer has one.

        Raises:
            ConfigError: the ranks do not divide the input features, or there is no collective.
        """
        super().__init__()
        self._shape = (out_features, in_features)
        size = rank_share(in_features, context, "input features of a linear layer")
        self._columns = slice(context.tp_rank * size, (context.tp_rank + 1) * size)
        self._is_split = context.tp_size > 1
        self._collective = require_collective(context)
        self.weight = parameter((out_features, size), context.dtype, context.device)
        self.bias = parameter((out_features,), context.dtype, context.device) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., this rank's in_features] to [..., out_features], the same on every rank."""
        if not self._is_split:
            return linear(x, self.weight, self.bias)
        summed = self._collective.all_reduce(self.summand(x))
        return summed if self.bias is None else summed + self.bias

    def summand(self, x: torch.Tensor) -> torch.Tensor:
        """What this rank adds to the sum, bias apart: for a layer that sums other things with it, all at once."""
        return linear(x, self.weight)

    def weights_loaded(self) -> None:
        self.weight = packed(self.weight)

    def weight_parts(self, parameter_name: str) -> Sequence[WeightPart]:
        """This rank's columns of the weight; all of the bias, which is added once, after the sum."""
        if parameter_name == "bias":
            return (WeightPart(self._shape[:1]),)
        return (WeightPart(self._shape, (slice(None), self._columns) if self._is_split else None),)
