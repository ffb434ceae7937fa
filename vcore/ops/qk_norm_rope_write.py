"""What stands between the joined projection and attention: norms of queries and keys, rotation, and the cache write."""

from __future__ import annotations

import torch

from vcore.ops.dispatch import op
from vcore.ops.kv_write import kv_write
from vcore.ops.rms_norm import rms_norm
from vcore.ops.rotary import apply_rotary_

__all__ = ["qk_norm_rope_write_"]


@op(cuda="vcore.ops.triton.qk_norm_rope_write:qk_norm_rope_write_")
def qk_norm_rope_write_(
    heads: torch.Tensor,
    q_weight: torch.Tensor | None,
    k_weight: torch.Tensor | None,
    eps: float,
    cos: torch.Tensor,
    sin: torch.Tensor,
    interleaved: bool,
    layer_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    block_offsets: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> None:
    """Normalise each query and key head and turn it, in place, and write keys and values into the cache.

    The same as `rms_norm`, `apply_rotary_` and `kv_write` one after another, rounded as often.

    Args:
        heads: [num_tokens, query, key and value heads, head_dim], in this order, a view with any strides; queries and
            keys are changed.
        q_weight: [head_dim], as for `rms_norm`; None for no norms.
        k_weight: the same; None exactly if `q_weight` is.
        eps: added to the mean square.
        cos: [num_tokens, 1, num_pairs], as for `apply_rotary_`.
        sin: the same.
        interleaved: as for `apply_rotary_`.
        layer_cache: [num_blocks, 2, block_size, num_kv_heads, head_dim], dtype of heads; changed. It says how many of
            the heads are keys and values.
        slot_mapping: int64 [num_tokens], as for `kv_write`.
        block_offsets: as for `kv_write`.
    """
    num_kv_heads = layer_cache.shape[3]
    q, k = heads[:, : -2 * num_kv_heads], heads[:, -2 * num_kv_heads : -num_kv_heads]
    if q_weight is not None and k_weight is not None:
        q.copy_(rms_norm(q, q_weight, eps))
        k.copy_(rms_norm(k, k_weight, eps))
    apply_rotary_(heads[:, :-num_kv_heads], cos, sin, interleaved)
    kv_write(k, heads[:, -num_kv_heads:], layer_cache, slot_mapping, block_offsets)
