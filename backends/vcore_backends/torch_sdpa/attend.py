"""Attention over gathered keys and values. It knows neither blocks nor batches."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["attend", "attend_with_lse"]


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    scale: float,
    soft_cap: float | None = None,
    is_causal: bool = False,
) -> torch.Tensor:
    """Softmax attention.

    Args:
        q: [outer, heads, num_queries, head_dim].
        k: [outer, heads or 1, num_keys, head_dim].
        v: the same.
        mask: what is added to the scores, broadcastable to [outer, heads, num_queries, num_keys]; dtype of q.
        scale: multiplies the scores.
        soft_cap: scores become ``soft_cap * tanh(scores / soft_cap)``; computed in float32.
        is_causal: the i-th query sees the first i + 1 keys; without a mask and a soft cap only.

    Returns:
        [outer, heads, num_queries, head_dim], dtype of q.
    """
    if soft_cap is not None:
        return _attend_capped(q, k, v, mask, scale, soft_cap)
    if k.shape[1] != q.shape[1]:
        # A stride of 0: the heads of a group read the same memory.
        k = k.expand(-1, q.shape[1], -1, -1)
        v = v.expand(-1, q.shape[1], -1, -1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal, scale=scale)


def attend_with_lse(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, *, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax attention, computed in float32, that can be merged with that over other keys.

    Args:
        q: [heads, num_queries, head_dim].
        k: [heads, num_keys, head_dim].
        v: [heads, num_keys, v_head_dim].
        mask: what is added to the scores, [num_queries, num_keys]; it leaves each query a key.
        scale: multiplies the scores.

    Returns:
        float32 [heads, num_queries, v_head_dim], and [heads, num_queries]: the logarithm of the sum of the
        exponentials of the scores.
    """
    scores = torch.matmul(q.float() * scale, k.float().transpose(-1, -2))
    if mask is not None:
        scores = scores.add_(mask)
    lse = scores.logsumexp(-1)
    return torch.matmul(scores.sub_(lse.unsqueeze(-1)).exp_(), v.float()), lse


def _attend_capped(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scale: float, soft_cap: float
) -> torch.Tensor:
    outer, heads, num_queries, head_dim = q.shape
    # Heads that share keys become more queries of one head.
    folded = q.float().reshape(outer, k.shape[1], -1, head_dim)
    scores = torch.matmul(folded, k.float().transpose(-1, -2)).mul_(scale / soft_cap).tanh_().mul_(soft_cap)
    scores = scores.view(outer, heads, num_queries, -1)
    if mask is not None:
        scores = scores + mask
    weights = scores.softmax(-1).view(outer, k.shape[1], heads // k.shape[1] * num_queries, -1)
    return torch.matmul(weights, v.float()).view(outer, heads, num_queries, -1).to(q.dtype)
