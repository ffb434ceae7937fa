"""Memory for what is gathered out of the cache."""

from __future__ import annotations

import torch

__all__ = ["Scratch", "rows_of"]


def rows_of(layer_cache: torch.Tensor, width: int) -> torch.Tensor:
    """The cache as rows of `width` numbers, for `Scratch.gather`.

    Returns:
        [num_rows, width]; or, where pages do not follow one upon another, [num_blocks, rows a page, width].
    """
    if layer_cache.is_contiguous():
        return layer_cache.view(-1, width)
    return layer_cache.view(layer_cache.shape[0], -1, width)


class Scratch:
    """Memory that gathered rows of a cache are put into, used by one layer after another.

    Fresh memory for each gather would cost more in page faults than the copying itself.
    """

    def __init__(self) -> None:
        self._memory: torch.Tensor | None = None

    def gather(self, cache_rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Rows `index`, int64 [num_rows], of `cache_rows` (see `rows_of`), valid until the next call."""
        if cache_rows.dim() == 3:
            num_rows = cache_rows.shape[1]
            return cache_rows[index // num_rows, index % num_rows]
        gathered = self._take(index.shape[0], cache_rows)
        return torch.index_select(cache_rows, 0, index, out=gathered)

    def _take(self, num_rows: int, like: torch.Tensor) -> torch.Tensor:
        size = num_rows * like.shape[1]
        memory = self._memory
        if memory is None or memory.numel() < size or memory.dtype != like.dtype:
            memory = self._memory = like.new_empty(1 << (size - 1).bit_length())
        return memory[:size].view(num_rows, like.shape[1])
