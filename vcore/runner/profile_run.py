"""`profile_run`: how much memory a step takes at its peak, found by computing the largest there can be.

With latent attention that may be one of fresh prompts, or one over a cache, whose latents are projected up. The
tokens belong to nobody: every slot and every block is the null block's.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from vcore.interfaces.attention import AttentionBackend, AttentionContext, AttentionMetadata, GroupContext
from vcore.interfaces.model import Model
from vcore.kv_cache.layout import CacheLayout
from vcore.kv_cache.spec import LatentCacheSpec
from vcore.layers.latent_prefill import WORKSPACE_TOKENS
from vcore.runner.choice import race, race_filtered
from vcore.runner.gumbel import token_offsets
from vcore.runner.memory import allocate_caches
from vcore.runner.null_steps import largest_metadata
from vcore.runner.settings import RunnerSettings

__all__ = ["profile_run", "run_largest_step"]


def profile_run(model: Model, attention: AttentionBackend, settings: RunnerSettings, layout: CacheLayout) -> int:
    """Bytes that the largest step allocates at its peak, beyond what is allocated now; CUDA only."""
    specs = model.kv_cache_specs()
    caches = allocate_caches(specs, layout, 1, settings.block_size, settings.device)
    steps = [largest_metadata(settings)]
    if any(isinstance(spec, LatentCacheSpec) for spec in specs):
        steps.append(largest_metadata(settings, num_cached=2 * WORKSPACE_TOKENS))
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
