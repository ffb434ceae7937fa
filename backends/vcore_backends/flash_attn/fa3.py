"""Version 3 (Shah et al., FlashAttention-3, arXiv:2407.08608), the module ``flash_attn_interface``."""

from __future__ import annotations

import torch

from vcore_backends.flash_attn.library import FlashAttention, Scores
from vcore_backends.flash_attn.rows import PrefillRows

__all__ = ["FlashAttention3"]


class FlashAttention3(FlashAttention):
    """``flash_attn_with_kvcache`` for all rows: it takes ragged queries and blocks of any size."""

    def __init__(self) -> None:
        """Raises:
        ImportError: it is not installed, or was built for another torch.
        """
        from flash_attn_interface import flash_attn_with_kvcache

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
            page_table=block_table,
            softmax_scale=scores.scale,
            causal=scores.causal,
            window_size=(scores.window_left, scores.window_right),
            softcap=scores.soft_cap,
        )
        return out.squeeze(1)

    def prefill(
        self, q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, rows: PrefillRows, scores: Scores
    ) -> torch.Tensor:
        out: torch.Tensor = self._with_kvcache(
            q,
            k_cache,
            v_cache,
            cache_seqlens=rows.seq_lens,
            page_table=rows.block_table,
            cu_seqlens_q=rows.query_start_loc,
            max_seqlen_q=rows.max_query_len,
            softmax_scale=scores.scale,
            causal=scores.causal,
            window_size=(scores.window_left, scores.window_right),
            softcap=scores.soft_cap,
        )
        return out
