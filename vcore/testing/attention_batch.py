"""Attention metadata built by hand, for tests of backends and models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vcore.interfaces.attention import AttentionMetadata

__all__ = ["build_attention_metadata"]


def build_attention_metadata(
    query_lens: Sequence[int],
    seq_lens: Sequence[int],
    block_tables: Sequence[Sequence[int]],
    *,
    block_size: int,
    device: torch.device | str = "cpu",
) -> AttentionMetadata:
    """The metadata of one step.

    Args:
        query_lens: tokens of each request in this step; requests with one token stand first.
        seq_lens: tokens of each request's context, those of this step included.
        block_tables: the block ids of each request; shorter ones are padded with the null block 0.
        block_size: tokens a block holds.
        device: where the tensors go.

    Raises:
        ValueError: a context is shorter than its queries, or a request with one token stands behind others.
    """
    num_decodes = sum(1 for length in query_lens if length == 1)
    if any(length != 1 for length in query_lens[:num_decodes]):
        raise ValueError(f"requests with one token must stand first, but the query lengths are {list(query_lens)}")
    if any(query > seq for query, seq in zip(query_lens, seq_lens, strict=True)):
        raise ValueError(f"query lengths {list(query_lens)} exceed context lengths {list(seq_lens)}")
    table = np.zeros((len(block_tables), max(map(len, block_tables))), dtype=np.int32)
    for row, blocks in enumerate(block_tables):
        table[row, : len(blocks)] = blocks
    starts = np.concatenate(([0], np.cumsum(query_lens))).astype(np.int32)
    lengths = np.asarray(seq_lens, dtype=np.int32)
    slots = [
        int(table[row, position // block_size]) * block_size + position % block_size
        for row, (query, seq) in enumerate(zip(query_lens, seq_lens, strict=True))
        for position in range(seq - query, seq)
    ]
    return AttentionMetadata(
        num_tokens=int(starts[-1]),
        num_requests=len(query_lens),
        num_decodes=num_decodes,
        query_start_loc=torch.from_numpy(starts.copy()).to(device),
        query_start_loc_cpu=starts,
        seq_lens=torch.from_numpy(lengths.copy()).to(device),
        seq_lens_cpu=lengths,
        max_query_len=max(query_lens),
        max_seq_len=max(seq_lens),
        block_table=torch.from_numpy(table).to(device),
        slot_mapping=torch.tensor(slots, dtype=torch.int64, device=device),
    )
