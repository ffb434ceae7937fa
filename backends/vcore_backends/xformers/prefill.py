"""`PrefillRun`: consecutive rows with several queries, as one call of block-diagonal attention.

Whole prompts attend to this step's K and V as they are. What rows with a cached prefix see is gathered out of the
cache first. Where keys lie is computed from the lengths on the device; the host's, which may be upper bounds, give
shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from vcore.interfaces.attention import AttentionMetadata
from vcore_backends.xformers.library import XFormers

__all__ = ["MAX_GATHERED_KEYS", "PrefillRun", "prefill_runs"]

MAX_GATHERED_KEYS = 1 << 16
"""Keys gathered for one call, if it has several rows: 256 MiB with 8 heads of 128 in 16 bits."""


class PrefillRun:
    """Rows ``start:stop`` of a step."""

    def __init__(
        self,
        library: XFormers,
        metadata: AttentionMetadata,
        rows: slice,
        kv_lens: list[int],
        *,
        block_size: int,
        causal: bool,
        window: int | None,
        is_cached: bool,
    ) -> None:
        """Args:
        library: makes the mask.
        metadata: the step. Not changed.
        rows: the run.
        kv_lens: how many keys each row's queries see between them, or upper bounds.
        block_size: tokens a block holds.
        causal: whether a query sees no later key.
        window: how many keys a query sees, its own included; None: all.
        is_cached: whether keys come out of the cache, and not from this step alone.
        """
        bounds: list[int] = metadata.query_start_loc_cpu[rows.start : rows.stop + 1].tolist()
        self.tokens = slice(bounds[0], bounds[-1])
        """The queries of the run, among those of the step."""
        self._block_size = block_size
        self._slots: tuple[torch.Tensor, torch.Tensor] | None = None
        self._indices: dict[int, torch.Tensor] = {}
        kv_start_loc = None
        if is_cached:
            kv_start_loc = self._locate(metadata, rows, sum(kv_lens), window)
        self.mask: Any = library.block_mask(
            np.diff(bounds).tolist(),
            kv_lens,
            causal=causal,
            window=window,
            device=metadata.seq_lens.device,
            kv_start_loc=kv_start_loc,
        )

    def index(self, pages_per_block: int) -> torch.Tensor | None:
        """int64 [num_keys]: rows of `KVPages` to gather; None if the keys are this step's."""
        if self._slots is None:
            return None
        if pages_per_block not in self._indices:
            block_ids, offsets = self._slots
            self._indices[pages_per_block] = block_ids * (pages_per_block * self._block_size) + offsets
        return self._indices[pages_per_block]

    def _locate(self, metadata: AttentionMetadata, rows: slice, num_keys: int, window: int | None) -> torch.Tensor:
        """Finds the block and the offset of each key; returns where each row's keys begin, int32 [num_rows + 1]."""
        seq_lens = metadata.seq_lens[rows].long()
        kv_lens = seq_lens
        if window is not None:
            query_lens = metadata.query_start_loc[rows.start : rows.stop + 1].diff()
            kv_lens = torch.minimum(seq_lens, query_lens + (window - 1))
        ends = kv_lens.cumsum(0)
        places = torch.arange(num_keys, device=seq_lens.device)
        # Keys behind the last are padding, where the host knows bounds alone: they stand for the last row's last.
        places = torch.minimum(places, ends[-1] - 1)
        row_of_key = torch.searchsorted(ends, places, right=True)
        positions = places - (ends - seq_lens)[row_of_key]  # a row's last key is that of its last token
        blocks = metadata.block_table[rows][row_of_key, positions // self._block_size]
        self._slots = (blocks.long(), positions % self._block_size)
        start_loc = torch.zeros(len(ends) + 1, dtype=torch.int32, device=seq_lens.device)
        start_loc[1:] = ends
        return start_loc


def prefill_runs(
    library: XFormers, metadata: AttentionMetadata, block_size: int, *, causal: bool, window: int | None
) -> list[PrefillRun]:
    """The rows behind the decode rows, in as few runs as kinds of rows and the memory for keys allow."""
    first = metadata.num_decodes
    query_lens = np.diff(metadata.query_start_loc_cpu)[first : metadata.num_requests].astype(np.int64)
    seq_lens = metadata.seq_lens_cpu[first : metadata.num_requests].astype(np.int64)
    # Also as an upper bound: a context holds its queries.
    is_cached = seq_lens > query_lens
    kv_lens = seq_lens if window is None else np.minimum(seq_lens, query_lens + window - 1)
    return [
        PrefillRun(
            library,
            metadata,
            slice(first + start, first + stop),
            kv_lens[start:stop].tolist(),
            block_size=block_size,
            causal=causal,
            window=window,
            is_cached=bool(is_cached[start]),
        )
        for start, stop in _cuts(is_cached.tolist(), kv_lens.tolist())
    ]


def _cuts(is_cached: list[bool], kv_lens: list[int]) -> Iterator[tuple[int, int]]:
    """Where runs of one kind begin and end; those that are gathered are cut before they have too many keys."""
    start = num_keys = 0
    for row, length in enumerate(kv_lens):
        is_full = is_cached[row] and num_keys + length > MAX_GATHERED_KEYS
        if row > start and (is_cached[row] != is_cached[start] or is_full):
            yield start, row
            start, num_keys = row, 0
        num_keys += length
    if kv_lens:
        yield start, len(kv_lens)
