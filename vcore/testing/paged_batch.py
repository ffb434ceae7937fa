"""`PagedBatch`: one step of some requests whose contexts lie scattered over a paged cache."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from vcore.interfaces.attention import AttentionBackendContext
from vcore.testing.attention_batch import build_attention_metadata

__all__ = ["PagedBatch"]


class PagedBatch:
    """The lengths, block tables and metadata of a step; what is in the blocks is a subclass's."""

    def __init__(
        self,
        requests: Sequence[tuple[int, int]],
        *,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device | str,
        seed: int,
    ) -> None:
        """Args:
        requests: of each request, its tokens in this step and its tokens in all; those with one token first.
        block_size: tokens a cache block holds.
        dtype: of what is computed.
        device: where it is.
        seed: of the places of blocks.
        """
        self.query_lens = [query for query, _ in requests]
        self.seq_lens = [seq for _, seq in requests]
        self._block_size, self._dtype, self._device = block_size, dtype, torch.device(device)
        self._tables = self._give_out_blocks(seed)
        self.metadata = build_attention_metadata(
            self.query_lens, self.seq_lens, self._tables, block_size=block_size, device=device
        )

    def context(self) -> AttentionBackendContext:
        """What a backend for this case is built from."""
        return AttentionBackendContext(
            device=self._device,
            dtype=self._dtype,
            block_size=self._block_size,
            max_num_seqs=len(self.seq_lens),
            max_num_batched_tokens=max(1, sum(self.query_lens)),
            max_model_len=max(self.seq_lens),
        )

    def _give_out_blocks(self, seed: int) -> list[list[int]]:
        counts = [-(-seq // self._block_size) for seq in self.seq_lens]
        block_ids = list(range(1, sum(counts) + 1))
        random.Random(seed).shuffle(block_ids)
        return [[block_ids.pop() for _ in range(count)] for count in counts]
