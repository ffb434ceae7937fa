"""`Collective`: how the ranks of one model exchange tensors. It knows nothing of layers."""

from __future__ import annotations

from typing import Protocol

import torch

__all__ = ["Collective"]


class Collective(Protocol):
    """Exchange among the tensor-parallel ranks. Every rank calls the same methods in the same order."""

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of `tensor` over all ranks, of the same shape; `tensor` may be overwritten."""

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """The ranks' tensors joined along the last axis, in rank order; `tensor` is not changed."""
