"""Version 4, the package ``flash_attn.cute``: kernels written in Python, compiled when a shape first needs them."""

from __future__ import annotations

import torch

from vcore_backends.flash_attn.library import FlashAttention, Scores
from vcore_backends.flash_attn.rows import PrefillRows

__all__ = ["FlashAttention4"]

_MAJORS = (9, 10, 11)
"""Major compute capabilities whose kernels read a paged cache; those of 8 and 12 do not."""


class FlashAttention4(FlashAttention):
    """``flash_attn_varlen_func`` for all rows; decode rows are a batch of one query each."""

    def __init__(self) -> None:
        """Raises:
        ImportError: it is not installed, or its compiler is not.
        """
        from flash_attn.cute import flash_attn_varlen_func

        self._varlen = flash_attn_varlen_func

    def decode(
        self,
        q: torch.Tensor,
        k_cache: torch.Tensor,
        v_cache: torch.Tensor,
        seq_lens: torch.Tensor,
        block_table: torch.Tensor,
        scores: Scores,
    ) -> torch.Tensor:
        out: torch.Tensor
        out, _ = self._varlen(
            q.unsqueeze(1),  # [num_rows, 1, num_heads, head_dim]
            k_cache,
            v_cache,
            seqused_k=seq_lens,
            page_table=block_table,
            softmax_scale=scores.scale,
            causal=scores.causal,
            window_size=_window(scores),
            softcap=scores.soft_cap,
        )
        return out.squeeze(1)

    def prefill(
        self, q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, rows: PrefillRows, scores: Scores
    ) -> torch.Tensor:
        out: torch.Tensor
        out, _ = self._varlen(
            q,
            k_cache,
            v_cache,
            cu_seqlens_q=rows.query_start_loc,
            max_seqlen_q=rows.max_query_len,
            max_seqlen_k=rows.max_seq_len,
            seqused_k=rows.seq_lens,
            page_table=rows.block_table,
            softmax_scale=scores.scale,
            causal=scores.causal,
            window_size=_window(scores),
            softcap=scores.soft_cap,
        )
        return out

    @classmethod
    def device_reason(cls, device: torch.device) -> str | None:
        if device.type != "cuda" or not torch.cuda.is_available():
            return None
        major, minor = torch.cuda.get_device_capability(device)
        if major in _MAJORS:
            return None
        served = ", ".join(f"{major}.x" for major in _MAJORS)
        return f"its paged kernels run on compute capability {served}, not on {major}.{minor}"


def _window(scores: Scores) -> tuple[int | None, int | None]:
    """In this version, None means all."""
    return (None, None) if scores.window_left < 0 else (scores.window_left, scores.window_right)
