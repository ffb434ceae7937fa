"""Rotary position embedding, applied (Su et al., 2021, arXiv:2104.09864, equation 34)."""

from __future__ import annotations

import torch

from vcore.ops.dispatch import op

__all__ = ["apply_rotary_"]


@op(cuda="vcore.ops.triton.rotary:apply_rotary_")
def apply_rotary_(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool = False) -> None:
    """Turn each pair of features of `x` by its token's angle, in place.

    Args:
        x: [num_tokens, num_heads, head_dim], a view with any strides; changed. Features from
            ``2 * num_pairs`` on stay as they are. Computed in the wider dtype of x and cos.
        cos: [num_tokens, 1, num_pairs], usually float32.
        sin: the same.
        interleaved: pairs are neighbours (GPT-J) instead of halves (GPT-NeoX, Llama).
    """
    num_pairs = cos.shape[-1]
    if interleaved:
        first, second = x[..., : 2 * num_pairs : 2], x[..., 1 : 2 * num_pairs : 2]
    else:
        first, second = x[..., :num_pairs], x[..., num_pairs : 2 * num_pairs]
    # [num_tokens, num_heads, num_pairs]; both are computed before either is overwritten
    turned_first = (first * cos).addcmul_(second, sin, value=-1)
    turned_second = (second * cos).addcmul_(first, sin)
    first.copy_(turned_first)
    second.copy_(turned_second)
