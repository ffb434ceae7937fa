"""Attention over a split context, made whole from its parts.

Softmax attention over two disjoint sets of keys is a weighted mean of the attention over each, and the
logarithm of the sum of exponentials (LSE) of each part's scores is all that the weights need (Rabe and
Staats, 2021, arXiv:2112.05682, section 2; FlashAttention, arXiv:2205.14135, section 3.1):

    lse = log(exp(lse_a) + exp(lse_b))
    out = exp(lse_a - lse) * out_a + exp(lse_b - lse) * out_b
"""

from __future__ import annotations

import torch

from vcore.ops.dispatch import op

__all__ = ["merge_attention_"]


@op()
def merge_attention_(out: torch.Tensor, lse: torch.Tensor, other: torch.Tensor, other_lse: torch.Tensor) -> None:
    """Merge the attention over further keys into `out` and `lse`, which are changed.

    A part without keys has an LSE of -inf and counts for nothing; where both are, `out` becomes zero.

    Args:
        out: [num_queries, num_heads, v_head_dim]; the sum is taken in float32.
        lse: float32 [num_queries, num_heads].
        other: shape and dtype of out. Not changed.
        other_lse: shape and dtype of lse. Not changed.
    """
    largest = torch.maximum(lse, other_lse)
    # Any finite number will do where neither part has keys: -inf less -inf would be NaN.
    largest = torch.where(largest == float("-inf"), 0.0, largest)
    weight, other_weight = (lse - largest).exp_(), (other_lse - largest).exp_()
    total = weight + other_weight
    lse.copy_(total.log() + largest)
    total = torch.where(total == 0, 1.0, total)
    share, other_share = (weight / total).unsqueeze(-1), (other_weight / total).unsqueeze(-1)
    out.copy_(torch.addcmul(out * share, other, other_share))
