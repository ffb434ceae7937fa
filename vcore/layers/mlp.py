"""`GatedMLP` and `MLP`: one layer's feed-forward network, from the norm to the residual stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F

from vcore.errors import UnsupportedModelError
from vcore.interfaces.model import BuildContext
from vcore.layers.config_checks import check_sizes
from vcore.layers.linear import ColumnParallelLinear, RowParallelLinear
from vcore.layers.norm import NormStyle, ResidualBlock
from vcore.ops.gelu_tanh_and_mul import gelu_tanh_and_mul
from vcore.ops.silu_and_mul import silu_and_mul

__all__ = ["MLP", "GatedMLP", "gate_of"]

_GATES: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": silu_and_mul,
    "swish": silu_and_mul,
    "gelu_pytorch_tanh": gelu_tanh_and_mul,
    "gelu_tanh": gelu_tanh_and_mul,
}
"""By the name that configs give the activation."""


def _squared_relu(x: torch.Tensor) -> torch.Tensor:
    """``max(x, 0) ** 2`` (So et al., 2021, arXiv:2109.08668, section 3)."""
    return F.relu(x).square_()


_ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": F.gelu,
    "gelu_fast": partial(F.gelu, approximate="tanh"),
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "relu2": _squared_relu,
    "silu": F.silu,
    "swish": F.silu,
}
"""The same, of networks without a gate."""


def gate_of(activation: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The op that takes a joined gate and up projection, [..., 2 * size], to [..., size].

    Raises:
        UnsupportedModelError: there is none of that name; the message lists those there are.
    """
    gate = _GATES.get(activation) if isinstance(activation, str) else None
    if gate is None:
        raise UnsupportedModelError(
            f"the model's config asks for the activation {activation!r}, but gated feed-forward layers have "
            f"{', '.join(sorted(_GATES))}. The model needs a model plugin of its own."
        )
    return gate


class GatedMLP(ResidualBlock):
    """Norm, joined gate and up projections, the gate, down projection.

    Parameters: ``norm``, ``post_norm``, ``gate_up_proj``, ``down_proj``.
    """

    def __init__(
        self,
        context: BuildContext,
        *,
        hidden_size: int,
        intermediate_size: int,
        norms: NormStyle,
        activation: str = "silu",
        bias: bool = False,
    ) -> None:
        """Args:
        context: the device, dtype and ranks to build for.
        hidden_size: size of the residual stream.
        intermediate_size: of gate and up each, over all ranks.
        norms: which norms there are, and of what kind.
        activation: of the gate, as configs call it (``hidden_act``).
        bias: whether the three projections have one.

        Raises:
            ConfigError: the ranks do not divide `intermediate_size`.
            UnsupportedModelError: the activation is not known, or a size is no whole number above zero.
        """
        check_sizes(context.config, hidden_size=hidden_size, intermediate_size=intermediate_size)
        super().__init__(context, hidden_size, norms)
        self._gate = gate_of(activation)
        self.gate_up_proj = ColumnParallelLinear(context, hidden_size, (intermediate_size, intermediate_size), bias)
        self.down_proj = RowParallelLinear(context, intermediate_size, hidden_size, bias)

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
        """The network alone, without norms and residual stream: [num_tokens, hidden_size] to the same."""
        result: torch.Tensor = self.down_proj(self.gate_up_proj.gated(x, self._gate))
        return result


class MLP(ResidualBlock):
    """Norm, up projection, activation, down projection: a network without a gate.

    Parameters: ``norm``, ``post_norm``, ``up_proj``, ``down_proj``.
    """

    def __init__(
        self,
        context: BuildContext,
        *,
        hidden_size: int,
        intermediate_size: int,
        norms: NormStyle,
        activation: str,
        bias: bool = False,
    ) -> None:
        """Args:
        context: the device, dtype and ranks to build for.
        hidden_size: size of the residual stream.
        intermediate_size: of the layer between, over all ranks.
        norms: which norms there are, and of what kind.
        activation: as configs call it (``hidden_act``).
        bias: whether both projections have one.

        Raises:
            ConfigError: the ranks do not divide `intermediate_size`.
            UnsupportedModelError: the activation is not known, or a size is no whole number above zero.
        """
        check_sizes(context.config, hidden_size=hidden_size, intermediate_size=intermediate_size)
        super().__init__(context, hidden_size, norms)
        self._activation = _activation_of(activation)
        self.up_proj = ColumnParallelLinear(context, hidden_size, intermediate_size, bias)
        self.down_proj = RowParallelLinear(context, intermediate_size, hidden_size, bias)

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """As `GatedMLP.forward`."""
        x, residual = self.enter(x, residual)
        return self.leave(self.transform(x)), residual

    def transform(self, x: torch.Tensor) -> torch.Tensor:
        """The network alone, without norms and residual stream: [num_tokens, hidden_size] to the same."""
        result: torch.Tensor = self.down_proj(self._activation(self.up_proj(x)))
        return result


def _activation_of(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    activation = _ACTIVATIONS.get(name) if isinstance(name, str) else None
    if activation is None:
        raise UnsupportedModelError(
            f"the model's config asks for the activation {name!r}, but feed-forward layers without a gate have "
            f"{', '.join(sorted(_ACTIVATIONS))}. The model needs a model plugin of its own."
        )
    return activation
