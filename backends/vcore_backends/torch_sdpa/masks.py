"""Additive masks of queries that are the last of their keys."""

from __future__ import annotations

import torch

__all__ = ["CausalMasks"]


class CausalMasks:
    """Masks for up to `max_queries` queries at the end of any number of keys, cut out of one that is kept.

    Seen from the lower right corner, the mask of few queries and keys is part of that of many, so one
    mask serves every row of every step (on the CPU by views, elsewhere by copies):

        keys      0 . . . . . . . n-1
        query 0   0 0 0 0 0 0 - - -         0 may be seen, - is minus infinity;
        query 1   0 0 0 0 0 0 0 - -         with a sliding window, columns on the
        query 2   0 0 0 0 0 0 0 0 -         left are minus infinity, too
        query 3   0 0 0 0 0 0 0 0 0
    """

    def __init__(self, max_queries: int, window: int | None, dtype: torch.dtype, device: torch.device) -> None:
        self._max_queries = max_queries
        self._window = window
        self._dtype = dtype
        self._device = device
        self._mask = self._build(max_queries)

    def mask(self, num_queries: int, num_keys: int) -> torch.Tensor:
        """[num_queries, num_keys], not to be changed; `num_queries` is at most `num_keys`."""
        if num_keys > self._mask.shape[1]:
            self._mask = self._build(1 << (num_keys - 1).bit_length())
        mask = self._mask[self._max_queries - num_queries :, self._mask.shape[1] - num_keys :]
        # CUDA's kernels load 16 bytes of a mask at a time: a view that begins between two such places is a fault.
        return mask if self._device.type == "cpu" else mask.clone(memory_format=torch.contiguous_format)

    def _build(self, num_keys: int) -> torch.Tensor:
        shape = (self._max_queries, num_keys)
        # How far a key lies behind the query, [max_queries, num_keys]; negative means ahead.
        last = torch.arange(num_keys - self._max_queries, num_keys, device=self._device)
        behind = last[:, None] - torch.arange(num_keys, device=self._device)
        hidden = behind < 0
        if self._window is not None:
            hidden |= behind >= self._window
        zeros = torch.zeros(shape, dtype=self._dtype, device=self._device)
        return zeros.masked_fill_(hidden, float("-inf"))
