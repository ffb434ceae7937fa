"""Mixture of experts: `FusedMoE`, the routed experts, and `MoEBlock`, from the norm to the residual stream.

    x ── gate ── logits ── Routing ── weights, expert ids
    │                                      │
    ├── experts: the chosen ones' gated networks, weighted ──┐
    │                                                        + ── summed over ranks
    └── shared experts (and their own gate): every token ────┘

Each rank has a share of every expert's intermediate features, so one exchange completes all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from vcore.interfaces.model import BuildContext
from vcore.layers.config_checks import check_sizes
from vcore.layers.linear import ColumnParallelLinear, ReplicatedLinear, RowParallelLinear
from vcore.layers.mlp import gate_of
from vcore.layers.norm import NormStyle, ResidualBlock
from vcore.layers.parallel import rank_share, require_collective
from vcore.layers.router import Router
from vcore.layers.routing import Routing, UniformRouting
from vcore.layers.weights import PartitionedModule, WeightPart, packed, parameter
from vcore.ops.moe import fused_experts

__all__ = ["FusedMoE", "MoEBlock", "SharedExperts"]


class _Experts(PartitionedModule):
    """One matrix an expert. Loaded, they are one tensor, or each is packed where products with few rows are faster
    so: on a CPU an expert's rows are few, and packing makes products of 2 to 128 rows two to five times as fast."""

    def __init__(self, context: BuildContext, num_experts: int, out_features: int, in_features: int) -> None:
        super().__init__()
        self._num_experts = num_experts
        self.weight: nn.Parameter | None = parameter(
            (num_experts, out_features, in_features), context.dtype, context.device
        )
        self.packed = nn.ParameterList()
        self._packed: tuple[torch.Tensor, ...] = ()
        """The same, to look up without a detour."""

    @property
    def matrices(self) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """By expert, [out_features, in_features]."""
        return self._packed if self.weight is None else self.weight

    def weights_loaded(self) -> None:
        assert self.weight is not None
        first = packed(nn.Parameter(self.weight[0], requires_grad=False))
        if not first.is_mkldnn:
            return
        others = (packed(nn.Parameter(matrix, requires_grad=False)) for matrix in self.weight[1:])
        self.packed.extend((first, *others))
        self._packed = tuple(self.packed)
        self.weight = None  # its memory goes with it


class _GateUpExperts(_Experts):
    """Gate and up projections of all experts: this rank's output features of each."""

    def __init__(self, context: BuildContext, num_experts: int, hidden_size: int, intermediate_size: int) -> None:
        self._share = rank_share(intermediate_size, context, "intermediate features of an expert")
        super().__init__(context, num_experts, 2 * self._share, hidden_size)
        self._shape = (intermediate_size, hidden_size)
        first = context.tp_rank * self._share
        self._source = (slice(first, first + self._share), slice(None)) if context.tp_size > 1 else None

    def weight_parts(self, parameter_name: str) -> Sequence[WeightPart]:
        """Gate, then up, expert by expert."""
        halves = (slice(0, self._share), slice(self._share, 2 * self._share))
        return [
            WeightPart(self._shape, self._source, (expert, half), expert)
            for expert in range(self._num_experts)
            for half in halves
        ]


class _DownExperts(_Experts):
    """Down projections of all experts: this rank's input features of each."""

    def __init__(self, context: BuildContext, num_experts: int, hidden_size: int, intermediate_size: int) -> None:
        share = rank_share(intermediate_size, context, "intermediate features of an expert")
        super().__init__(context, num_experts, hidden_size, share)
        self._shape = (hidden_size, intermediate_size)
        first = context.tp_rank * share
        self._source = (slice(None), slice(first, first + share)) if context.tp_size > 1 else None

    def weight_parts(self, parameter_name: str) -> Sequence[WeightPart]:
        """One part an expert."""
        return [WeightPart(self._shape, self._source, (expert,), expert) for expert in range(self._num_experts)]


class FusedMoE(nn.Module):
    """Routed experts: each token through the gated networks that the routing chooses for it.

    Parameters: ``gate_up_experts.weight``, [num_experts, 2 * intermediate_size, hidden_size];
    ``down_experts.weight``, [num_experts, hidden_size, intermediate_size]; ``routing``'s own. A `WeightMap` names
    them with templates, e.g. ``{"gate_up_experts": ("{expert}.gate_proj", "{expert}.up_proj"), "down_experts":
    ("{expert}.down_proj",)}``.
    """

    def __init__(
        self,
        context: BuildContext,
        *,
        num_experts: int,
        hidden_size: int,
        intermediate_size: int,
        routing: Routing,
        activation: str = "silu",
    ) -> None:
        """Args:
            context: the device, dtype and ranks to build for, and whether its `moe_routing` replaces `routing`.
            num_experts: to choose from.
            hidden_size: of a token.
            intermediate_size: of one expert's gate and up each, over all ranks.
            routing: which experts a token goes to.
            activation: of the gate, as configs call it (``hidden_act``).

        Raises:
            ConfigError: the ranks do not divide `intermediate_size`.
            UnsupportedModelError: the activation is not known, or the routing does not fit the experts.
        """
        super().__init__()
        routing.check(num_experts)
        self._gate = gate_of(activation)
        self.gate_up_experts = _GateUpExperts(context, num_experts, hidden_size, intermediate_size)
        self.down_experts = _DownExperts(context, num_experts, hidden_size, intermediate_size)
        self.routing = routing
        self._instead = UniformRouting(routing.top_k) if context.moe_routing == "uniform" else None

    def forward(self, x: torch.Tensor, logits: torch.Tensor, addend: torch.Tensor | None = None) -> torch.Tensor:
        """Args:
            x: [num_tokens, hidden_size].
            logits: the router's, [num_tokens, num_experts].
            addend: [num_tokens, hidden_size], added to the result.

        Returns:
            [num_tokens, hidden_size]: what this rank adds to the sum over ranks, which the caller takes.
        """
        weights, expert_ids = (self._instead or self.routing)(logits)
        matrices = self.gate_up_experts.matrices, self.down_experts.matrices
        return fused_experts(x, *matrices, weights, expert_ids, self._gate, addend)


class SharedExperts(nn.Module):
    """The gated network that every token goes through; several shared experts are one of their joint size.

    Parameters: ``gate_up_proj``, ``down_proj``.
    """

    def __init__(self, context: BuildContext, hidden_size: int, intermediate_size: int, activation: str) -> None:
        """Args:
            context: the device, dtype and ranks to build for.
            hidden_size: of a token.
            intermediate_size: of gate and up each, over all shared experts and all ranks.
            activation: of the gate, as configs call it.

        Raises:
            ConfigError: the ranks do not divide `intermediate_size`.
            UnsupportedModelError: the activation is not known.
        """
        super().__init__()
        self._gate = gate_of(activation)
        self.gate_up_proj = ColumnParallelLinear(context, hidden_size, (intermediate_size, intermediate_size))
        self.down_proj = RowParallelLinear(context, intermediate_size, hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[num_tokens, hidden_size] to what this rank adds to the sum over ranks, of the same shape."""
        return self.down_proj.summand(self.gate_up_proj.gated(x, self._gate))


class MoEBlock(ResidualBlock):
    """Norm, router, routed and shared experts (DeepSeekMoE, arXiv:2401.06066, equations 3 to 5 and 9).

    Parameters: ``norm``, ``post_norm``, ``gate`` (the router), ``experts`` (see `FusedMoE`), ``shared_experts``,
    ``shared_expert_gate``, as far as asked for.
    """

    def __init__(
        self,
        context: BuildContext,
        *,
        hidden_size: int,
        num_experts: int,
        intermediate_size: int,
        routing: Routing,
        norms: NormStyle,
        activation: str = "silu",
        shared_intermediate_size: int | None = None,
        shared_gate: bool = False,
        router_dtype: torch.dtype | None = None,
    ) -> None:
        """Args:
            context: the device, dtype and ranks to build for.
            hidden_size: size of the residual stream.
            num_experts: routed experts.
            intermediate_size: of one routed expert's gate and up each, over all ranks.
            routing: which experts a token goes to.
            norms: which norms there are, and of what kind.
            activation: of all experts' gates, as configs call it (``hidden_act``).
            shared_intermediate_size: of all shared experts' gate and up each; None if there are none.
            shared_gate: the shared experts' result is multiplied by a sigmoid of the token, as Qwen2-MoE has it.
            router_dtype: what the router is computed in; None means the model's dtype.

        Raises:
            ConfigError: the ranks do not divide the intermediate sizes.
            UnsupportedModelError: the activation is not known, the routing does not fit the experts, or a size is no
                whole number above zero.
        """
        check_sizes(
            context.config, hidden_size=hidden_size, num_experts=num_experts, intermediate_size=intermediate_size
        )
        if shared_intermediate_size is not None:
            check_sizes(context.config, shared_intermediate_size=shared_intermediate_size)
        super().__init__(context, hidden_size, norms)
        self._collective = require_collective(context)
        self.gate = Router(context, hidden_size, num_experts, router_dtype or context.dtype)
        self.experts = FusedMoE(
            context,
            num_experts=num_experts,
            hidden_size=hidden_size,
            intermediate_size=intermediate_size,
            routing=routing,
            activation=activation,
        )
        self.shared_experts: SharedExperts | None = None
        self.shared_expert_gate: ReplicatedLinear | None = None
        if shared_intermediate_size is not None:
            self.shared_experts = SharedExperts(context, hidden_size, shared_intermediate_size, activation)
            self.shared_expert_gate = ReplicatedLinear(context, hidden_size, 1) if shared_gate else None

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Args:
            x: [num_tokens, hidden_size], to be added to the residual stream; the stream if `residual` is None.
            residual: [num_tokens, hidden_size], or None.

        Returns:
            What this block adds to the stream, and the stream before it.
        """
        x, residual = self.enter(x, residual)
        return self.leave(self.transform(x)), residual

    def transform(self, x: torch.Tensor) -> torch.Tensor:
        """The experts alone, without norms and residual stream: [num_tokens, hidden_size] to the same."""
        shared: torch.Tensor | None = None
        if self.shared_experts is not None:
            shared = self.shared_experts(x)
            if self.shared_expert_gate is not None:
                shared = shared * self.shared_expert_gate(x).sigmoid()
        return self._collective.all_reduce(self.experts(x, self.gate(x), shared))
