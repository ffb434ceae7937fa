"""Writing a step's latents into the paged cache of multi-head latent attention."""

from __future__ import annotations

import torch

from vcore.ops.dispatch import op

__all__ = ["latent_write"]


@op(cuda="vcore.ops.triton.latent_write:latent_write")
def latent_write(latent: torch.Tensor, layer_cache: torch.Tensor, slot_mapping: torch.Tensor) -> None:
    """Scatter `latent` into `layer_cache`, which is changed.

    Args:
        latent: [num_tokens, latent_dim], a view with any strides.
        layer_cache: [num_blocks, block_size, latent_dim], dtype of latent.
        slot_mapping: int64 [num_tokens], ``block_id * block_size + offset``. Of tokens that share a slot
            (padding, in the null block) any one wins.
    """
    layer_cache.view(-1, layer_cache.shape[-1]).index_copy_(0, slot_mapping, latent)
