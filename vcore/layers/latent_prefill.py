"""How a step's prefill rows are computed in latent attention: in which form, and from what pieces of context.

Both forms give the same result (DeepSeek-V2, arXiv:2405.04434, section 2.1.2): up-projected, keys and values
of each head are made from the latents; absorbed, the projections go into queries and results instead, and the
latents are attended to as they are.

Up-projected, the context of all prefill rows, request after request, is made in one piece or in several:

    fresh prompts               own tokens, causal
    fits the workspace          [cached and own tokens, out of the cache, causal]
    does not fit                own tokens, causal | workspace | workspace | ...        cached tokens, all seen;
                                                                                        merged by their LSE
It knows numbers of tokens, blocks and slots, but no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vcore.interfaces.attention import AttentionMetadata, LatentSpec, RaggedBatch
from vcore.layers.ragged import RaggedLengths, build_ragged_batches, start_locations

__all__ = ["WORKSPACE_TOKENS", "LatentPiece", "absorbed_is_cheaper", "plan_prefill"]

WORKSPACE_TOKENS = 8192
"""Cached tokens that are projected up at a time: many enough that each product is a large one, few enough that keys
and values of all heads take a few hundred MiB at most."""


@dataclass(slots=True, kw_only=True)
class LatentPiece:
    """Tokens of context that are projected up together, and who attends to them."""

    queries: slice
    """Out of the queries of the step's prefill rows."""
    slots: torch.Tensor | None
    """int64 [num_keys]: where the latents stand in the cache; None: they are those of the prefill rows' own tokens."""
    batch: RaggedBatch


def absorbed_is_cheaper(spec: LatentSpec, num_new: NDArray[np.int64], num_cached: NDArray[np.int64]) -> bool:
    """Whether the absorbed form takes fewer multiply-adds than the up-projected one.

    A row of n new tokens over c cached ones has ``P = n c + n (n + 1) / 2`` pairs of a query and a key it sees.
    With R for `kv_lora_rank`, N, D and V for the features of a head without position, with position and of its
    value, a head takes

        absorbed         n R (N + V)        +  P (R + D + R)      project queries and results; attend to latents
        up-projected     (n + c) R (N + V)  +  P (N + D + V)      project the context up; attend to keys and values

    so that the absorbed form is cheaper where ``P (2 R - N - V) < c R (N + V)``, summed over the rows: few new
    tokens over a long context. For DeepSeek-V3's heads that is below some 170 tokens.

    Args:
        spec: the layer.
        num_new: int64 [num_rows], tokens of this step.
        num_cached: int64 [num_rows], tokens before them.
    """
    projected = spec.qk_nope_head_dim + spec.v_head_dim
    pairs = int((num_new * num_cached + num_new * (num_new + 1) // 2).sum())
    return pairs * (2 * spec.kv_lora_rank - projected) < int(num_cached.sum()) * spec.kv_lora_rank * projected


def plan_prefill(
    metadata: AttentionMetadata, spec: LatentSpec, *, block_size: int, workspace_tokens: int
) -> list[LatentPiece] | None:
    """The pieces that the step's prefill rows attend to, the one with their own tokens first and causal.

    Args:
        metadata: a step with prefill rows, whose lengths the host knows exactly.
        spec: the layer.
        block_size: tokens a cache block holds.
        workspace_tokens: most tokens of a piece that is read from the cache.

    Returns:
        The pieces, or None if the whole batch is to be computed in the absorbed form.
    """
    rows = slice(metadata.num_decodes, metadata.num_requests)
    num_new = np.diff(metadata.query_start_loc_cpu[rows.start : rows.stop + 1]).astype(np.int64)
    num_keys = metadata.seq_lens_cpu[rows].astype(np.int64)
    num_cached = num_keys - num_new
    if absorbed_is_cheaper(spec, num_new, num_cached):
        return None
    fits = num_keys.sum() <= workspace_tokens
    if num_cached.any() and fits:
        cuts, num_gathered = [_Cut(0, num_keys, causal=True, cached=True)], num_keys
    else:
        own = _Cut(0, num_new, causal=True, cached=False)
        cuts, num_gathered = [own, *_cached_cuts(num_cached, workspace_tokens)], num_cached
    slots = _Slots(metadata, num_gathered, block_size)
    return _send(cuts, num_new, slots, metadata.block_table.device)


@dataclass(frozen=True, slots=True)
class _Cut:
    """A piece as the host sees it: tokens of consecutive prefill rows."""

    first_row: int
    num_keys: NDArray[np.int64]
    """Of each row from the first."""
    causal: bool
    cached: bool
    """Whether they are read from the cache, one such piece after another."""

    @property
    def rows(self) -> slice:
        return slice(self.first_row, self.first_row + len(self.num_keys))


def _cached_cuts(num_cached: NDArray[np.int64], workspace_tokens: int) -> list[_Cut]:
    """All cached tokens, as many at a time as the workspace holds."""
    starts = start_locations(num_cached)
    cuts = []
    for start in range(0, int(starts[-1]), workspace_tokens):
        counts = np.minimum(starts[1:], start + workspace_tokens) - np.maximum(starts[:-1], start)
        present = np.flatnonzero(counts > 0)
        first, last = int(present[0]), int(present[-1])
        # Rows between them may have nothing cached.
        cuts.append(_Cut(first, counts[first : last + 1].clip(min=0), causal=False, cached=True))
    return cuts


class _Slots:
    """Where in the cache the first tokens of each prefill row stand: divided on the host, looked up on the device."""

    def __init__(self, metadata: AttentionMetadata, num_tokens: NDArray[np.int64], block_size: int) -> None:
        """The first `num_tokens`, int64 [num_rows], of each prefill row."""
        self._block_table = metadata.block_table
        self._block_size = block_size
        starts = start_locations(num_tokens)
        positions = np.arange(starts[-1]) - np.repeat(starts[:-1], num_tokens)
        rows = np.arange(metadata.num_decodes, metadata.num_requests)
        columns, offsets = np.divmod(positions, block_size)
        entries = np.repeat(rows * metadata.block_table.shape[1], num_tokens) + columns
        self.host_arrays = (entries, offsets)
        """Of each token, its entry in the flat block table, and its offset into the block."""

    def on_device(self, entries: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        """int64 [sum of the numbers of tokens], from what `host_arrays` are on the device."""
        block_ids = self._block_table.reshape(-1).index_select(0, entries)
        return block_ids.long() * self._block_size + offsets


def _send(cuts: Sequence[_Cut], num_new: NDArray[np.int64], slots: _Slots, device: torch.device) -> list[LatentPiece]:
    batches, indices = build_ragged_batches(
        [RaggedLengths(num_new[cut.rows], cut.num_keys, cut.causal) for cut in cuts], slots.host_arrays, device
    )
    counts = [int(cut.num_keys.sum()) for cut in cuts if cut.cached]
    slots_of_cuts = iter(torch.split(slots.on_device(*indices), counts))
    query_starts = start_locations(num_new)
    return [
        LatentPiece(
            queries=slice(int(query_starts[cut.rows.start]), int(query_starts[cut.rows.stop])),
            slots=next(slots_of_cuts) if cut.cached else None,
            batch=batch,
        )
        for cut, batch in zip(cuts, batches, strict=True)
    ]
