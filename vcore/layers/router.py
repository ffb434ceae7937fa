"""`Router`: from a token to the logits of its experts."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from vcore.interfaces.model import BuildContext
from vcore.layers.linear import ReplicatedLinear
from vcore.ops.wide_linear import wide_linear

__all__ = ["Router"]

_HALVES = frozenset({torch.bfloat16, torch.float16})


class Router(ReplicatedLinear):
    """A linear layer that may be computed in a wider dtype than the model's.

    Weights of a checkpoint in half precision are kept so, since a product of two halves is exact in float32: only
    those that this would change are widened, and their inputs with them.
    """

    def __init__(self, context: BuildContext, hidden_size: int, num_experts: int, dtype: torch.dtype) -> None:
        """Args:
        context: the device and the model's dtype.
        hidden_size: of a token.
        num_experts: logits a token.
        dtype: what the logits are computed in, the model's or float32.
        """
        super().__init__(replace(context, dtype=dtype), hidden_size, num_experts)
        self._dtype, self._model_dtype = dtype, context.dtype
        self._is_narrow = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[num_tokens, hidden_size] to [num_tokens, num_experts] in the dtype given."""
        return wide_linear(x, self.weight) if self._is_narrow else super().forward(x.to(self._dtype))

    def weights_loaded(self) -> None:
        narrow = self.weight.to(self._model_dtype)
        can_be_narrow = self._dtype == torch.float32 and self._model_dtype in _HALVES
        if can_be_narrow and torch.equal(narrow.float(), self.weight):
            self._is_narrow = True
            self.weight = nn.Parameter(narrow, requires_grad=False)
        else:
            super().weights_loaded()
