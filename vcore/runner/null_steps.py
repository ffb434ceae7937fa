"""Steps of tokens that belong to nobody: every slot and every block is the null block's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from vcore.interfaces.attention import AttentionMetadata
from vcore.runner.input_builder import table_width
from vcore.runner.settings import RunnerSettings

__all__ = ["largest_metadata", "metadata_of", "null_metadata"]


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
    return metadata_of(settings, np.sort(num_new), num_cached)


def null_metadata(settings: RunnerSettings, num_tokens: int, window: int | None) -> AttentionMetadata:
    """A step of `num_tokens`, or as many as there may be, in requests of equal lengths."""
    num_requests = -(-num_tokens // settings.max_model_len)
    shares = np.diff(np.linspace(0, num_tokens, num_requests + 1).astype(np.int32))
    return replace(metadata_of(settings, np.sort(shares)), sliding_window=window)


def metadata_of(settings: RunnerSettings, num_new: NDArray[np.int32], num_cached: int = 0) -> AttentionMetadata:
    """Requests of as many new tokens, those with one first, behind `num_cached` others each."""
    device, seq_lens = settings.device, num_new + np.int32(num_cached)
    query_start_loc = np.append(0, np.cumsum(num_new)).astype(np.int32)
    num_requests, num_tokens = num_new.size, int(query_start_loc[-1])
    width = table_width(int(seq_lens.max()), settings.block_size, settings.max_blocks_per_row)
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
