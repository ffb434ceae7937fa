"""Keys and values of a step into the paged cache: one program a token."""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl

from vcore.ops.triton.early_start import begin_and_wait, starts_early

__all__ = ["kv_write"]


@triton.jit
def _kv_write_kernel(
    k_ptr,
    v_ptr,
    cache_ptr,
    slot_mapping_ptr,
    stride_k_token,
    stride_k_head,
    stride_k_dim,
    stride_v_token,
    stride_v_head,
    stride_v_dim,
    stride_block,
    stride_side,
    stride_slot,
    stride_head,
    stride_dim,
    NUM_HEADS: tl.constexpr,
    HEADS_PAD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    DIM_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin_and_wait(EARLY)
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slot_mapping_ptr + token)
    heads = tl.arange(0, HEADS_PAD)[:, None]
    dims = tl.arange(0, DIM_PAD)[None, :]
    mask = (heads < NUM_HEADS) & (dims < HEAD_DIM)
    place = cache_ptr + slot // BLOCK_SIZE * stride_block + slot % BLOCK_SIZE * stride_slot
    place = place + heads * stride_head + dims * stride_dim
    k = tl.load(k_ptr + token * stride_k_token + heads * stride_k_head + dims * stride_k_dim, mask=mask)
    v = tl.load(v_ptr + token * stride_v_token + heads * stride_v_head + dims * stride_v_dim, mask=mask)
    tl.store(place, k, mask=mask)
    tl.store(place + stride_side, v, mask=mask)


def kv_write(
    k: torch.Tensor,
    v: torch.Tensor,
    layer_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    block_offsets: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> None:
    """As `vcore.ops.kv_write`; divides `slot_mapping` itself."""
    num_tokens, num_heads, head_dim = k.shape
    if not k.numel():
        return
    early = starts_early(k.device, num_tokens)
    _kv_write_kernel[(num_tokens,)](
        k,
        v,
        layer_cache,
        slot_mapping,
        *k.stride(),
        *v.stride(),
        *layer_cache.stride(),
        NUM_HEADS=num_heads,
        HEADS_PAD=triton.next_power_of_2(num_heads),
        HEAD_DIM=head_dim,
        DIM_PAD=triton.next_power_of_2(head_dim),
        BLOCK_SIZE=layer_cache.shape[2],
        EARLY=early,
        **({"launch_pdl": True} if early else {}),
    )
