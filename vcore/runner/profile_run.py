"""`profile_run`: how much memory a step takes at its peak, found by computing the largest one there can be.

Its tokens belong to nobody: every slot and every block is the null block's.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from vcore.interfaces.attention import AttentionBackend, AttentionContext, AttentionMetadata, GroupContext
from vcore.interfaces.model import Model
from vcore.kv_cache.layout import CacheLayout
from vcore.runner.choice import race_filtered
from vcore.runner.gumbel import token_offsets
from vcore.runner.memory import allocate_caches
from vcore.runner.settings import RunnerSettings

__all__ = ["largest_metadata", "profile_run", "run_largest_step"]


def profile_run(model: Model, attention: AttentionBackend, settings: RunnerSettings, layout: CacheLayout) -> int:
    """Bytes that the largest step allocates at its peak, beyond what is allocated now; CUDA only."""
    caches = allocate_caches(model.kv_cache_specs(), layout, 1, settings.block_size, settings.device)
    torch.cuda.synchronize(settings.device)
    torch.cuda.reset_peak_memory_stats(settings.device)
    before = torch.cuda.memory_allocated(settings.device)
    run_largest_step(model, attention, settings, layout, caches)
    torch.cuda.synchronize(settings.device)
    return torch.cuda.max_memory_allocated(settings.device) - before


@torch.inference_mode()
def run_largest_step(
    model: Model,
    attention: AttentionBackend,
    settings: RunnerSettings,
    layout: CacheLayout,
    caches: list[torch.Tensor],
) -> None:
    """Compute `max_num_batched_tokens` dummy tokens and sample for `max_num_seqs` rows. Writes block 0 alone."""
    device = settings.device
    metadata = largest_metadata(settings)
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
    race_filtered(logits, rows, ones, rows, token_offsets(settings.vocab_size, device), top_k, ones, ones)


def largest_metadata(settings: RunnerSettings) -> AttentionMetadata:
    """A step of `max_num_batched_tokens` new tokens, in as few and as long requests as there may be."""
    device, longest = settings.device, settings.max_model_len
    num_tokens = min(settings.max_num_batched_tokens, longest * settings.max_num_seqs)
    num_requests = -(-num_tokens // longest)
    seq_lens = np.full(num_requests, longest, dtype=np.int32)
    seq_lens[-1] = num_tokens - longest * (num_requests - 1)
    # Rows with one token come first.
    seq_lens = np.sort(seq_lens)
    query_start_loc = np.append(0, np.cumsum(seq_lens)).astype(np.int32)
    width = settings.max_blocks_per_row
    return AttentionMetadata(
        num_tokens=num_tokens,
        num_requests=num_requests,
        num_decodes=int((seq_lens == 1).sum()),
        query_start_loc=torch.from_numpy(query_start_loc).to(device),
        query_start_loc_cpu=query_start_loc,
        seq_lens=torch.from_numpy(seq_lens).to(device),
        seq_lens_cpu=seq_lens,
        max_query_len=int(seq_lens.max()),
        max_seq_len=int(seq_lens.max()),
        block_table=torch.zeros((num_requests, width), dtype=torch.int32, device=device),
        slot_mapping=torch.zeros(num_tokens, dtype=torch.int64, device=device),
    )
