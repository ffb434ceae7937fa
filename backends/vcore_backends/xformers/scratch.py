"""Memory for keys and values that are gathered out of the cache."""

from __future__ import annotations

import torch

from vcore_backends.xformers.pages import KVPages

__all__ = ["Scratch"]


class Scratch:
    """One piece of memory, used by one layer after another; it grows to what the largest step needs."""

    def __init__(self) -> None:
        self._memory: torch.Tensor | None = None

    def gather(self, pages: KVPages, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows `index`, int64 [num_keys], of K and of V, valid until the next call.

        Returns:
            [num_keys, num_kv_heads, head_dim] each.
        """
        shape = (2, index.shape[0], *pages.k.shape[1:])
        gathered = self._take(shape, pages.k)
        torch.index_select(pages.k, 0, index, out=gathered[0])
        torch.index_select(pages.v, 0, index, out=gathered[1])
        return gathered[0], gathered[1]

    def _take(self, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        size = torch.Size(shape).numel()
        memory = self._memory
        if memory is None or memory.numel() < size or memory.dtype != like.dtype:
            memory = self._memory = like.new_empty(1 << (size - 1).bit_length())
        return memory[:size].view(shape)
