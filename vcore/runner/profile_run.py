"""`profile_run`: how much memory a step takes at its peak, found by computing the largest there can be.

With latent attention that may be one of fresh prompts, or one over a cache, whose latents are projected up. The
tokens belong to nobody: every slot and every block is the null block's.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from vcore.interfaces.attention import AttentionBackend, AttentionContext, AttentionMetadata, GroupContext
from vcore.interfaces.model import Model
from vcore.kv_cache.layout import CacheLayout
from vcore.kv_cache.spec import LatentCacheSpec
from vcore.layers.latent_prefill import WORKSPACE_TOKENS
from vcore.ops.compile_ahead import compile_ahead
from vcore.runner.choice import race, race_filtered
from vcore.runner.gumbel import token_offsets
from vcore.runner.memory import allocate_caches
from vcore.runner.settings import RunnerSettings

__all__ = ["largest_metadata", "null_metadata", "profile_run", "run_largest_step"]


def profile_run(model: Model, attention: AttentionBackend, settings: RunnerSettings, layout: CacheLayout) -> int:
    """Bytes that the largest step allocates at its peak, beyond what is allocated now; CUDA only."""
    specs = model.kv_cache_specs()
    caches = allocate_caches(specs, layout, 1, settings.block_size, settings.device)
    steps = [largest_metadata(settings)]
    if any(isinstance(spec, LatentCacheSpec) for spec in specs):
        steps.append(largest_metadata(settings, num_cached=2 * WORKSPACE_TOKENS))

    def compute_all() -> None:
        for metadata in (*steps, *_decode_steps(attention, settings)):
            run_largest_step(model, attention, settings, layout, caches, metadata)

    compile_ahead(settings.device, compute_all)
    torch.cuda.synchronize(settings.device)
    torch.cuda.reset_peak_memory_stats(settings.device)
    before = torch.cuda.memory_allocated(settings.device)
    for metadata in steps:
        run_largest_step(model, attention, settings, layout, caches, metadata)
    torch.cuda.synchronize(settings.device)
    return torch.cuda.max_memory_allocated(settings.device) - before


@torch.inference_mode()
def run_largest_step(
    model: Model,
    attention: AttentionBackend,
    settings: RunnerSettings,
    layout: CacheLayout,
    caches: list[torch.Tensor],
    metadata: AttentionMetadata,
) -> None:
    """Compute the step `metadata` of dummy tokens and sample for `max_num_seqs` rows. Writes block 0 alone."""
    device = settings.device
    input_ids = torch.zeros(metadata.num_tokens, dtype=torch.int64, device=device)
    positions = torch.arange(metadata.num_tokens, device=device) % settings.max_model_len
    groups = []
    for window in layout.windows:
        of_group = replace(metadata, sliding_window=window)
        groups.append(GroupContext(attention.plan(of_group), of_group))
    context = AttentionContext([groups[index] for index in layout.group_of_layer], caches)
    hidden_states = model(input_ids, positions, context)
    rows = torch.arange(settings.max_num_seqs, device=device)
    logits = model.compute_logits(hidden_states.index_select(0, rows % metadata.num_tokens))
    ones = torch.ones(settings.max_num_seqs, device=device)
    top_k = torch.full_like(rows, settings.vocab_size)
    offsets = token_offsets(settings.vocab_size, device)
    race(logits, rows, ones, rows, offsets)
    race_filtered(logits, rows, ones, rows, offsets, top_k, ones, ones)


def _decode_steps(attention: AttentionBackend, settings: RunnerSettings) -> list[AttentionMetadata]:
    """Steps of decode rows that together launch the kernels of any: of one row, some, many, and with shared blocks."""
    most = settings.max_num_seqs
    steps = [_metadata(settings, np.ones(rows, dtype=np.int32), 0) for rows in (1, min(16, most), most)]
    if attention.uses_shared_prefix(most, settings.max_blocks_per_row):
        one = torch.ones(1, dtype=torch.int32, device=settings.device)
        steps.append(replace(steps[-1], num_shared_blocks=one))
    return steps


def largest_metadata(settings: RunnerSettings, num_cached: int = 0) -> AttentionMetadata:
    """A step of `max_num_batched_tokens` new tokens, in as few and as long requests as there may be.

    `num_cached` tokens of each request, or as many as half of the longest, were computed before.
    """
    longest = settings.max_model_len
    num_cached = min(num_cached, longest // 2)
    longest_new = longest - num_cached
    num_tokens = min(settings.max_num_batched_tokens, longest_new * settings.max_num_seqs)
    num_requests = -(-num_tokens // longest_new)
    num_new = np.full(num_requests, longest_new, dtype=np.int32)
    num_new[-1] = num_tokens - longest_new * (num_requests - 1)
    # Rows with one token come first.
    return _metadata(settings, np.sort(num_new), num_cached)


def null_metadata(settings: RunnerSettings, num_tokens: int, window: int | None) -> AttentionMetadata:
    """A step of `num_tokens`, or as many as there may be, in requests of equal lengths."""
    num_requests = -(-num_tokens // settings.max_model_len)
    shares = np.diff(np.linspace(0, num_tokens, num_requests + 1).astype(np.int32))
    return replace(_metadata(settings, np.sort(shares), 0), sliding_window=window)


def _metadata(settings: RunnerSettings, num_new: NDArray[np.int32], num_cached: int) -> AttentionMetadata:
    """Requests of as many new tokens, behind `num_cached` others each; all of it is the null block's."""
    device, seq_lens = settings.device, num_new + np.int32(num_cached)
    query_start_loc = np.append(0, np.cumsum(num_new)).astype(np.int32)
    num_requests, num_tokens, width = num_new.size, int(query_start_loc[-1]), settings.max_blocks_per_row
    return AttentionMetadata(
        num_tokens=num_tokens,
        num_requests=num_requests,
        num_decodes=int((num_new == 1).sum()),
        query_start_loc=torch.from_numpy(query_start_loc).to(device),
        query_start_loc_cpu=query_start_loc,
        seq_lens=torch.from_numpy(seq_lens).to(device),
        seq_lens_cpu=seq_lens,
        max_query_len=int(num_new.max()),
        max_seq_len=int(seq_lens.max()),
        block_table=torch.zeros((num_requests, width), dtype=torch.int32, device=device),
        slot_mapping=torch.zeros(num_tokens, dtype=torch.int64, device=device),
    )
