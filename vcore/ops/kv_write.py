"""Writing a step's keys and values into the paged cache."""

from __future__ import annotations

import torch

from vcore.ops.dispatch import op

__all__ = ["kv_write"]


@op(cuda="vcore.ops.triton.kv_write:kv_write")
def kv_write(
    k: torch.Tensor,
    v: torch.Tensor,
    layer_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    block_offsets: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> None:
    """Scatter `k` and `v` into `layer_cache`, which is changed.

    Args:
        k: [num_tokens, num_kv_heads, head_dim], a view with any strides.
        v: the same.
        layer_cache: [num_blocks, 2, block_size, num_kv_heads, head_dim], dtype of k.
        slot_mapping: int64 [num_tokens], ``block_id * block_size + offset``. Of tokens that share a slot
            (padding, in the null block) any one wins.
        block_offsets: `slot_mapping` split into block ids and offsets, if the caller has them; kernels
            that divide for themselves ignore it.
    """
    if block_offsets is None:
        block_size = layer_cache.shape[2]
        block_offsets = (slot_mapping // block_size, slot_mapping % block_size)
    k_cache, v_cache = layer_cache.unbind(1)  # [num_blocks, block_size, num_kv_heads, head_dim]
    k_cache.index_put_(block_offsets, k)
    v_cache.index_put_(block_offsets, v)
