"""`Rehearsal`: every kind of step that there may be, of tokens that belong to nobody: no kernel is new to later ones.

Fused kernels are compiled for classes of sizes: of rows, of tokens, of the longest chunk. Which, their authors know
alone. But they tell sizes apart at powers of two, and those of chunks at powers of four, so that steps on either side
of each power launch whatever there is. `vcore.ops.compile_ahead` compiles what they launch, and computes little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from vcore.interfaces.attention import Attend, AttentionBackend, AttentionContext, AttentionMetadata, GroupContext
from vcore.interfaces.model import Model
from vcore.kv_cache.layout import CacheLayout
from vcore.kv_cache.spec import KVCacheSpec, LatentCacheSpec
from vcore.layers.latent_prefill import WORKSPACE_TOKENS
from vcore.runner.choice import greedy, race
from vcore.runner.gumbel import token_offsets
from vcore.runner.null_steps import largest_metadata, metadata_of, null_metadata
from vcore.runner.settings import RunnerSettings

__all__ = ["Rehearsal", "attention_steps", "either_side_of_powers"]

_CHUNK_ROWS = 64
"""Tokens of a row that has more of them cached: few enough for latents to be attended to as they are."""


def either_side_of_powers(base: int, limit: int) -> list[int]:
    """1, the powers of `base`, and one more than each, ascending, up to `limit`, which is the last."""
    sizes = {1, 2, limit}
    power = base
    while power <= limit:
        sizes |= {power, power + 1}
        power *= base
    return sorted(size for size in sizes if size <= limit)


def attention_steps(settings: RunnerSettings, *, latent: bool) -> list[AttentionMetadata]:
    """Steps that together launch the kernels which attention of any step may; `latent`: of a model with latents."""
    decodes = (np.ones(rows, dtype=np.int32) for rows in either_side_of_powers(2, settings.max_num_seqs))
    steps = [(num_new, 0) for num_new in decodes]
    steps += [(num_new, 0) for num_new in _chunks(settings)]
    if latent:
        steps += _chunks_of_latents(settings)
    longest, most_tokens = settings.max_model_len, settings.max_num_batched_tokens
    return [
        metadata_of(settings, num_new, num_cached)
        for num_new, num_cached in steps
        if int(num_new.max()) + num_cached <= longest
        and int(num_new.sum()) <= most_tokens
        and num_new.size <= settings.max_num_seqs
    ]


def _chunks(settings: RunnerSettings) -> Iterator[NDArray[np.int32]]:
    """So many chunks, of which the longest has so many tokens; those beside it are short."""
    lengths = [length for length in either_side_of_powers(4, settings.max_num_batched_tokens) if length > 1]
    for rows in either_side_of_powers(4, settings.max_num_seqs):
        for length in lengths:
            num_new = np.full(rows, 2, dtype=np.int32)
            num_new[-1] = length
            yield num_new


def _chunks_of_latents(settings: RunnerSettings) -> list[tuple[NDArray[np.int32], int]]:
    """Chunks with more tokens cached than are projected up at a time, and such whose latents are attended to as they
    are: see `vcore.layers.latent_prefill`. With each, how many tokens of every row are cached."""
    steps = []
    for rows in (1, 17):
        for length in (256, 257):
            steps.append((np.full(rows, length, dtype=np.int32), WORKSPACE_TOKENS // rows + 1))
    cached = min(settings.max_model_len - _CHUNK_ROWS, 16 * _CHUNK_ROWS)
    for num_tokens in either_side_of_powers(4, settings.max_num_batched_tokens):
        if num_tokens > 1 and cached > 0:
            rows = -(-num_tokens // _CHUNK_ROWS)
            shares = np.diff(np.linspace(0, num_tokens, rows + 1).astype(np.int32))
            steps.append((np.sort(shares), cached))
    return steps


class Rehearsal:
    """Computes the steps. It writes the null block of the caches alone."""

    def __init__(
        self,
        model: Model,
        compute_logits: Callable[[torch.Tensor], torch.Tensor],
        attention: AttentionBackend,
        settings: RunnerSettings,
        layout: CacheLayout,
        caches: Sequence[torch.Tensor],
    ) -> None:
        """Args:
        model: loaded.
        compute_logits: its LM head.
        attention: the backend that its layers were built with.
        settings: resolved settings.
        layout: of `caches`.
        caches: of each layer, of at least the null block.
        """
        self._model = model
        self._compute_logits = compute_logits
        self._attention = attention
        self._settings = settings
        self._layout = layout
        self._caches = caches
        self._specs = model.kv_cache_specs()

    @torch.inference_mode()
    def run(self, *, beyond: int = 0) -> None:
        """Compute all of them, the largest first: its kernels take the longest to compile.

        Args:
            beyond: steps of so many tokens are computed elsewhere, but for their attention.
        """
        largest = largest_metadata(self._settings)
        latent = any(isinstance(spec, LatentCacheSpec) for spec in self._specs)
        steps = [
            (metadata.num_tokens, self._context(metadata))
            for metadata in self._with_shared_blocks(attention_steps(self._settings, latent=latent))
        ]
        context = self._context(largest)
        every = _EveryStep(context.layer_groups, self._caches, steps, self._kinds_of_layers())
        hidden_states = self._forward(every, largest.num_tokens)
        for rows in {1, min(self._settings.max_num_seqs, largest.num_tokens)}:
            self._choose(self._compute_logits(hidden_states[:rows]))
        for num_tokens in either_side_of_powers(2, largest.num_tokens)[:-1]:
            if num_tokens > beyond:
                self._forward(self._context(null_metadata(self._settings, num_tokens, None)), num_tokens)

    def _with_shared_blocks(self, steps: list[AttentionMetadata]) -> list[AttentionMetadata]:
        """The steps, and those of decode rows again, with blocks that the rows have in common, where they matter."""
        one = torch.ones(1, dtype=torch.int32, device=self._settings.device)
        width = self._settings.max_blocks_per_row
        sharing = [
            replace(step, num_shared_blocks=one)
            for step in steps
            if 1 < step.num_decodes == step.num_requests and self._attention.uses_shared_prefix(step.num_decodes, width)
        ]
        return [*steps, *sharing]

    def _kinds_of_layers(self) -> list[tuple[int, KVCacheSpec]]:
        """Of each layer that keeps a cache: what is the same of layers whose attention is the same."""
        return list(zip(self._layout.group_of_layer, self._specs, strict=True))

    def _context(self, metadata: AttentionMetadata) -> AttentionContext:
        groups = []
        for window in self._layout.windows:
            shared = metadata.num_shared_blocks if window is None else None
            of_group = replace(metadata, sliding_window=window, num_shared_blocks=shared)
            groups.append(GroupContext(self._attention.plan(of_group), of_group))
        return AttentionContext([groups[index] for index in self._layout.group_of_layer], self._caches)

    def _forward(self, attn: AttentionContext, num_tokens: int) -> torch.Tensor:
        zeros = torch.zeros(num_tokens, dtype=torch.int64, device=self._settings.device)
        hidden_states: torch.Tensor = self._model(zeros, zeros, attn)
        return hidden_states

    def _choose(self, logits: torch.Tensor) -> None:
        """Tokens from logits as they are, and as they are where rows have penalties and the like."""
        rows = torch.arange(logits.shape[0], device=logits.device)
        temperature = torch.ones(logits.shape[0], device=logits.device)
        offsets = token_offsets(logits.shape[1], logits.device)
        for given in (logits, logits.float()):
            greedy(given)
            race(given, rows, temperature, rows, offsets)


class _EveryStep(AttentionContext):
    """The context of one step. Attention is computed of all `steps`, for the first layer of a kind."""

    __slots__ = ("_kinds", "_seen", "_steps")

    def __init__(
        self,
        layer_groups: Sequence[GroupContext],
        layer_caches: Sequence[torch.Tensor],
        steps: Sequence[tuple[int, AttentionContext]],
        kinds: Sequence[tuple[int, KVCacheSpec]],
    ) -> None:
        """`steps`: with their numbers of tokens, none more than that of the step; `kinds`: of the layers, in order."""
        super().__init__(layer_groups, layer_caches)
        self._steps = steps
        self._kinds = iter(kinds)
        self._seen: list[tuple[int, KVCacheSpec] | None] = []

    def run(self, attend: Attend, *inputs: torch.Tensor) -> torch.Tensor:
        kind = next(self._kinds, None)
        if kind not in self._seen:
            self._seen.append(kind)
            for num_tokens, attn in self._steps:
                attend(attn, None, *[tensor[:num_tokens] for tensor in inputs])
        return attend(self, None, *inputs)
