"""What the layers of one step share: which cache rows to gather, and masks.

A layer's cache is seen as rows of one token's K or V, ``[num_blocks * 2 * block_size, num_kv_heads *
head_dim]``: a block is `block_size` rows of K, then as many of V. That of latent attention is seen as rows of
one token's latent, ``[num_blocks * block_size, latent_dim]``. Indices of padding point at a token of the same
request, never at an unwritten slot, so that no stale NaN gets into a sum.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from vcore.interfaces.attention import AttentionMetadata
from vcore_backends.torch_sdpa.buckets import Bucket, BucketLimits, bucket_rows

__all__ = ["DecodeBucket", "DecodePlan", "PrefillRow", "StepPlan", "StepPlanner", "WindowPlan"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DecodeBucket:
    """Rows with one query each, padded to a common number of keys."""

    start: int
    stop: int
    """It is ``start:stop`` of the order in `DecodePlan`."""
    width: int
    """Keys of each row, padding included."""
    index: torch.Tensor
    """int64 [2 * num_rows * width]: cache rows of all K, then of all V; [num_rows * width] of latents."""
    mask: torch.Tensor | None
    """[num_rows, 1, 1, width], added to the scores; None if there is no padding."""


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """The rows with one query each."""

    order: torch.Tensor | None
    """int64 [num_decodes]: the order in which buckets take the rows; None: as they stand."""
    buckets: list[DecodeBucket]


@dataclass(frozen=True, slots=True)
class PrefillRow:
    """A request with several queries, or one that does not stand among the decode rows."""

    start: int
    stop: int
    """Its queries."""
    num_keys: int
    """The last so many tokens of its context are its keys; the queries are the last of them."""
    index: torch.Tensor | None
    """int64 [2 * num_keys]: cache rows of all K, then of all V; [num_keys] of latents; None: the keys are this
    step's."""
    padding_mask: torch.Tensor | None
    """[1, num_keys], added to the scores, where the host knows only a bound of the length; None: no padding."""

    @property
    def num_queries(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """The step as layers with one sliding window (or none) see it."""

    decode: DecodePlan
    prefill: list[PrefillRow]


class StepPlan:
    """The step. What layers of one kind need is planned when the first of them asks."""

    def __init__(self, planner: StepPlanner, metadata: AttentionMetadata, limits: BucketLimits) -> None:
        self._planner = planner
        self._metadata = metadata
        self._limits = limits
        self._parts: dict[Hashable, object] = {}
        self.num_decodes = metadata.num_decodes

    def window(self, window: int | None) -> WindowPlan:
        """For layers with this sliding window, or none."""

        def make() -> WindowPlan:
            return WindowPlan(
                decode=self._planner.plan_decode(self._metadata, self._limits, window=window),
                prefill=self._planner.plan_prefill(self._metadata, window=window),
            )

        return self._part(("window", window), make)

    def latent_decode(self) -> DecodePlan:
        """The rows with one query each, for layers of latent attention."""
        return self._part(
            "latent_decode", lambda: self._planner.plan_decode(self._metadata, self._limits, latents=True)
        )

    def latent_prefill(self) -> list[PrefillRow]:
        """The other rows, for layers of latent attention that read all of their context from the cache."""
        return self._part("latent_prefill", lambda: self._planner.plan_prefill(self._metadata, latents=True))

    def _part(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self._parts:
            self._parts[key] = make()
        return cast(T, self._parts[key])


class StepPlanner:
    """Makes a `StepPlan` of an `AttentionMetadata`."""

    def __init__(self, *, block_size: int, dtype: torch.dtype, device: torch.device, exact_lengths: bool) -> None:
        """Args:
        block_size: tokens a cache block holds.
        dtype: of the masks.
        device: of indices and masks.
        exact_lengths: lengths can be read off the device at no cost. Otherwise the host's are taken for
            shapes, as upper bounds, and the device's for indices and masks.
        """
        self._block_size = block_size
        self._dtype = dtype
        self._device = device
        self._exact = exact_lengths

    def plan(self, metadata: AttentionMetadata, limits: BucketLimits) -> StepPlan:
        """The plan of one step. `metadata` is not changed."""
        return StepPlan(self, metadata, limits)

    def plan_decode(
        self, metadata: AttentionMetadata, limits: BucketLimits, *, window: int | None = None, latents: bool = False
    ) -> DecodePlan:
        """The rows with one query each, in buckets."""
        num_rows = metadata.num_decodes
        if not num_rows:
            return DecodePlan(None, [])
        lengths = self._lengths(metadata)[:num_rows]
        widths = lengths if window is None else np.minimum(lengths, window)
        seq_lens, block_table = metadata.seq_lens[:num_rows], metadata.block_table[:num_rows]
        row_order, buckets = bucket_rows(widths, limits)
        order = None
        if len(buckets) > 1:
            order = torch.from_numpy(row_order).to(self._device)
            seq_lens, block_table = seq_lens[order], block_table[order]
        seq_lens = seq_lens.long().unsqueeze(1)  # [num_rows, 1]
        return DecodePlan(
            order, [self._plan_bucket(bucket, seq_lens, block_table, window, latents) for bucket in buckets]
        )

    def _plan_bucket(
        self, bucket: Bucket, seq_lens: torch.Tensor, block_table: torch.Tensor, window: int | None, latents: bool
    ) -> DecodeBucket:
        rows = slice(bucket.start, bucket.stop)
        ends = seq_lens[rows]  # [num_rows, 1]
        positions = torch.arange(bucket.width, device=self._device)  # [width]
        if window is not None:
            positions = positions + (ends - window).clamp_(min=0)  # [num_rows, width]
        mask = None
        if not (bucket.is_even and self._exact):
            mask = self._mask(positions >= ends).view(-1, 1, 1, bucket.width)
            positions = torch.minimum(positions, ends - 1)
        positions = positions.expand(bucket.stop - bucket.start, bucket.width)
        index = self._cache_rows(block_table[rows], positions, latents)
        return DecodeBucket(bucket.start, bucket.stop, bucket.width, index, mask)

    def plan_prefill(
        self, metadata: AttentionMetadata, *, window: int | None = None, latents: bool = False
    ) -> list[PrefillRow]:
        """The other rows, one by one."""
        lengths = self._lengths(metadata)
        bounds: list[int] = metadata.query_start_loc_cpu.tolist()
        return [
            self._plan_prefill_row(metadata, row, slice(*bounds[row : row + 2]), int(lengths[row]), window, latents)
            for row in range(metadata.num_decodes, metadata.num_requests)
        ]

    def _plan_prefill_row(
        self, metadata: AttentionMetadata, row: int, queries: slice, length: int, window: int | None, latents: bool
    ) -> PrefillRow:
        num_queries = queries.stop - queries.start
        if length == num_queries and not latents:  # also as an upper bound: a context holds its queries
            return PrefillRow(queries.start, queries.stop, length, None, None)
        num_keys = length if window is None else min(length, num_queries + window - 1)
        last = length if self._exact else metadata.seq_lens[row]
        positions = torch.arange(num_keys, device=self._device) + (last - num_keys)
        padding_mask = None
        if not self._exact:
            padding_mask = self._mask(positions < 0).unsqueeze(0)
            positions = positions.clamp_(min=0)
        index = self._cache_rows(metadata.block_table[row : row + 1], positions.unsqueeze(0), latents)
        return PrefillRow(queries.start, queries.stop, num_keys, index, padding_mask)

    def _lengths(self, metadata: AttentionMetadata) -> NDArray[np.int64]:
        known: NDArray[np.int32] = metadata.seq_lens.numpy() if self._exact else metadata.seq_lens_cpu
        return known[: metadata.num_requests].astype(np.int64)

    def _cache_rows(self, block_table: torch.Tensor, positions: torch.Tensor, latents: bool) -> torch.Tensor:
        """Where int64 [num_rows, width] `positions` stand: int64 [num_rows * width] of latents, otherwise
        [2 * num_rows * width] of all K, then of all V."""
        size = self._block_size
        block_ids = block_table.gather(1, positions // size).long()
        if latents:
            return block_ids.mul_(size).add_(positions % size).flatten()
        k_rows = block_ids.mul_(2 * size).add_(positions % size)
        return torch.stack((k_rows, k_rows + size)).flatten()

    def _mask(self, hidden: torch.Tensor) -> torch.Tensor:
        zeros = torch.zeros(hidden.shape, dtype=self._dtype, device=self._device)
        return zeros.masked_fill_(hidden, float("-inf"))
