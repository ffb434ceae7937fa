"""Products of each head with its own matrix: latent attention's way from queries to latents, and from them to values.

DeepSeek-V2, arXiv:2405.04434, section 2.1.2: the up-projections of keys and values, absorbed into queries and results.
"""

from __future__ import annotations

import torch

from vcore.ops.dispatch import op

__all__ = ["absorb_queries", "latent_values"]


@op(cuda="vcore.ops.triton.latent_heads:absorb_queries")
def absorb_queries(q: torch.Tensor, w_uk: torch.Tensor) -> torch.Tensor:
    """The part of each query without position, taken to the latent; its rotary part stays behind it as it is.

    Args:
        q: [num_tokens, num_heads, nope + rotary features], a view with any strides.
        w_uk: [num_heads, nope features, rank], dtype of q, a view with any strides. Nothing that a step computes.

    Returns:
        [num_tokens, num_heads, rank + rotary features], contiguous.
    """
    num_nope, rank = w_uk.shape[1:]
    joined = q.new_empty((*q.shape[:2], rank + q.shape[2] - num_nope))
    torch.bmm(q[..., :num_nope].transpose(0, 1), w_uk, out=joined[..., :rank].transpose(0, 1))
    joined[..., rank:] = q[..., num_nope:]
    return joined


@op(cuda="vcore.ops.triton.latent_heads:latent_values")
def latent_values(attended: torch.Tensor, w_uv: torch.Tensor) -> torch.Tensor:
    """Attended latents taken to values.

    Args:
        attended: [num_tokens, num_heads, rank], a view with any strides.
        w_uv: [num_heads, value features, rank], dtype of attended, a view with any strides. Nothing that a step
            computes.

    Returns:
        [num_tokens, num_heads, value features], contiguous.
    """
    values = attended.new_empty((*attended.shape[:2], w_uv.shape[1]))
    torch.bmm(attended.transpose(0, 1), w_uv.transpose(1, 2), out=values.transpose(0, 1))
    return values
