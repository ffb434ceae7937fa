"""Version 2 (Dao, FlashAttention-2, arXiv:2307.08691), the package ``flash_attn``."""

from __future__ import annotations

from typing import ClassVar

import torch

from vcore_backends.flash_attn.library import FlashAttention, Scores
from vcore_backends.flash_attn.rows import PrefillRows

__all__ = ["FlashAttention2"]


class FlashAttention2(FlashAttention):
    """``flash_attn_with_kvcache`` for decode rows, which splits long contexts; ``flash_attn_varlen_func`` for others.

    Both take blocks of a multiple of 256 tokens, at any stride.
    """

    sums_lengths: ClassVar[bool] = True

    def __init__(self) -> None:
        """Raises:
        ImportError: it is not installed, or was built for another torch.
        """
        from flash_attn import flash_attn_varlen_func, flash_attn_with_kvcache

        self._varlen = flash_attn_varlen_func
        self._with_kvcache = flash_attn_with_kvcache

    def decode(
        self,
        q: torch.Tensor,
        k_cache: torch.Tensor,
        v_cache: torch.Tensor,
        seq_lens: torch.Tensor,
        block_table: torch.Tensor,
        scores: Scores,
    ) -> torch.Tensor:
        out: torch.Tensor = self._with_kvcache(
            q.unsqueeze(1),  # [num_rows, 1, num_heads, head_dim]
            k_cache,
            v_cache,
            cache_seqlens=seq_lens,
            block_table=block_table,
            softmax_scale=scores.scale,
            causal=scores.causal,
            window_size=(scores.window_left, scores.window_right),
            softcap=scores.soft_cap,
        )
        return out.squeeze(1)

    def prefill(
        self, q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, rows: PrefillRows, scores: Scores
    ) -> torch.Tensor:
        out: torch.Tensor = self._varlen(
            q,
            k_cache,
            v_cache,
            cu_seqlens_q=rows.query_start_loc,
            cu_seqlens_k=rows.kv_start_loc,
            max_seqlen_q=rows.max_query_len,
            max_seqlen_k=rows.max_seq_len,
            softmax_scale=scores.scale,
            causal=scores.causal,
            window_size=(scores.window_left, scores.window_right),
            softcap=scores.soft_cap,
            block_table=rows.block_table,
        )
        return out
