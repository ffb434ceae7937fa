"""`DecodeRows`: the rows with one query each, padded to few shapes. Lengths and tables are read on the device."""

from __future__ import annotations

from typing import Any

import torch

from vcore.interfaces.attention import AttentionMetadata
from vcore_backends.xformers.buckets import bucket, padded
from vcore_backends.xformers.library import XFormers

__all__ = ["DecodeRows"]


class DecodeRows:
    """A step's decode rows as layers of one window see them.

    A row that is padding sees no keys. With a window, a table holds the blocks that the window touches alone: the
    kernel divides the width of the table among its programs, so what lies before would be divided for nothing.
    """

    def __init__(self, library: XFormers, metadata: AttentionMetadata, block_size: int, window: int | None) -> None:
        """Args:
        library: makes the masks.
        metadata: the step. Not changed.
        block_size: tokens a block holds.
        window: how many keys a query sees, its own included; None: all.
        """
        num_rows = metadata.num_decodes
        self.num_rows = num_rows
        self.num_padded = bucket(num_rows)
        """Rows that the kernel computes."""
        self._library = library
        self._block_size = block_size
        self._starts: torch.Tensor | None = None
        block_table, ends = metadata.block_table[:num_rows], metadata.seq_lens[:num_rows]
        if window is not None:
            block_table, starts, ends = _windowed(block_table, ends, block_size, window)
            self._starts = padded(starts, self.num_padded)
        self._ends = padded(ends, self.num_padded)
        self._block_table = padded(block_table, self.num_padded, bucket(block_table.shape[1]))
        self._masks: dict[int, Any] = {}

    def mask(self, pages_per_block: int) -> Any:
        """The library's mask, for caches of so many pages a block."""
        if pages_per_block not in self._masks:
            pages = self._block_table * pages_per_block
            self._masks[pages_per_block] = self._library.paged_mask(self._ends, pages, self._block_size, self._starts)
        return self._masks[pages_per_block]


def _windowed(
    block_table: torch.Tensor, seq_lens: torch.Tensor, block_size: int, window: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The blocks that the window of each row touches, and where in them its first key and its end lie.

    Returns:
        int32 [num_rows, width], [num_rows] and [num_rows].
    """
    # The window of w tokens that ends with the first of a block touches most.
    width = min(block_table.shape[1], (window - 2 + block_size) // block_size + 1)
    starts = (seq_lens - window).clamp_(min=0)
    first_blocks = starts // block_size  # [num_rows]
    columns = first_blocks.unsqueeze(1) + torch.arange(width, device=seq_lens.device)  # [num_rows, width]
    columns = columns.clamp_(max=block_table.shape[1] - 1)  # behind the end, where nothing is read
    skipped = first_blocks * block_size
    return block_table.gather(1, columns), starts - skipped, seq_lens - skipped
