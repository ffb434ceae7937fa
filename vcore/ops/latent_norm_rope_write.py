"""What stands between the projections of latent attention and attention: the latent's norm, rotation, cache write."""

from __future__ import annotations

import torch

from vcore.ops.dispatch import op
from vcore.ops.latent_write import latent_write
from vcore.ops.rms_norm import rms_norm
from vcore.ops.rotary import apply_rotary_

__all__ = ["latent_norm_rope_write_"]


@op(cuda="vcore.ops.triton.latent_norm_rope_write:latent_norm_rope_write_")
def latent_norm_rope_write_(
    latent: torch.Tensor,
    q_rope: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    cos: torch.Tensor,
    sin: torch.Tensor,
    interleaved: bool,
    layer_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
) -> None:
    """Normalise each latent, turn its rotary key and the rotary part of the queries, in place; write the cache.

    The same as `rms_norm`, `apply_rotary_` twice and `latent_write` one after another, rounded as often.

    Args:
        latent: [num_tokens, rank + rotary features], a view with any strides; changed.
        q_rope: [num_tokens, num_heads, rotary features], a view with any strides; changed.
        weight: [rank], as for `rms_norm`.
        eps: added to the mean square.
        cos: [num_tokens, 1, num_pairs], as for `apply_rotary_`.
        sin: the same.
        interleaved: as for `apply_rotary_`.
        layer_cache: [num_blocks, block_size, rank + rotary features], dtype of latent; changed.
        slot_mapping: int64 [num_tokens], as for `latent_write`.
    """
    rank = weight.shape[0]
    latent[:, :rank] = rms_norm(latent[:, :rank], weight, eps)
    apply_rotary_(q_rope, cos, sin, interleaved)
    apply_rotary_(latent[:, None, rank:], cos, sin, interleaved)
    latent_write(latent, layer_cache, slot_mapping)
