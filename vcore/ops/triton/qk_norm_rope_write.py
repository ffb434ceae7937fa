"""Norms of queries and keys, rotation and cache write in one pass: one program a token and some heads.

A head is held as the first and the second features of its pairs, and the rest that is not turned, so that turning
needs no exchange between threads.
"""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl

from vcore.ops.qk_norm_rope_write import qk_norm_rope_write_ as reference_op
from vcore.ops.triton.early_start import begin, starts_early, wait

__all__ = ["qk_norm_rope_write_"]

_DTYPES = frozenset({torch.bfloat16, torch.float16, torch.float32})
_ELEMENTS = 1024
"""Elements of a program."""
_MAX_HEAD_DIM = 1024
_separately = reference_op.reference


@triton.jit
def _by_kind(q_ptr, k_ptr, is_query, dims, known):
    """The weights that each head is multiplied by, [heads, dims]; float32."""
    q = tl.load(q_ptr + dims, mask=known, other=0.0).to(tl.float32)
    k = tl.load(k_ptr + dims, mask=known, other=0.0).to(tl.float32)
    return tl.where(is_query[:, None], q[None, :], k[None, :])


@triton.jit
def _qk_norm_rope_write_kernel(
    heads_ptr,
    q_weight_ptr,
    k_weight_ptr,
    cos_ptr,
    sin_ptr,
    cache_ptr,
    slot_mapping_ptr,
    eps,
    stride_token,
    stride_head,
    stride_cos,
    stride_sin,
    stride_block,
    stride_side,
    stride_slot,
    stride_cache_head,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    NUM_PAIRS: tl.constexpr,
    PAIRS_PAD: tl.constexpr,
    REST_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    HEADS: tl.constexpr,
    NORM: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin(EARLY)
    token = tl.program_id(0).to(tl.int64)
    heads = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    is_query = heads < NUM_HEADS
    is_value = heads >= NUM_HEADS + NUM_KV_HEADS
    pairs = tl.arange(0, PAIRS_PAD)
    known = pairs < NUM_PAIRS
    if INTERLEAVED:
        firsts = 2 * pairs
        seconds = firsts + 1
    else:
        firsts = pairs
        seconds = pairs + NUM_PAIRS
    if NORM:
        first_weight = _by_kind(q_weight_ptr, k_weight_ptr, is_query, firsts, known)
        second_weight = _by_kind(q_weight_ptr, k_weight_ptr, is_query, seconds, known)
    wait(EARLY)

    exists = heads < NUM_HEADS + 2 * NUM_KV_HEADS
    mask = exists[:, None] & known[None, :]
    source = heads_ptr + token * stride_token + heads[:, None] * stride_head
    first = tl.load(source + firsts[None, :], mask=mask, other=0.0).to(tl.float32)
    second = tl.load(source + seconds[None, :], mask=mask, other=0.0).to(tl.float32)
    slot = tl.load(slot_mapping_ptr + token)
    place = cache_ptr + slot // BLOCK_SIZE * stride_block + slot % BLOCK_SIZE * stride_slot
    kv_heads = heads - NUM_HEADS - tl.where(is_value, NUM_KV_HEADS, 0)
    target = place + (tl.where(is_value, stride_side, 0) + kv_heads * stride_cache_head)[:, None]
    dtype = heads_ptr.dtype.element_ty
    squares = tl.sum(first * first, 1) + tl.sum(second * second, 1)

    if REST_PAD > 0:
        others = 2 * NUM_PAIRS + tl.arange(0, REST_PAD)
        rest_mask = exists[:, None] & (others < HEAD_DIM)[None, :]
        rest = tl.load(source + others[None, :], mask=rest_mask, other=0.0).to(tl.float32)
        squares += tl.sum(rest * rest, 1)
    if NORM:
        # Values pass as they are.
        scale = tl.rsqrt(squares / HEAD_DIM + eps)[:, None]
        normed_first = (first * scale * first_weight).to(dtype).to(tl.float32)
        normed_second = (second * scale * second_weight).to(dtype).to(tl.float32)
    else:
        normed_first = first
        normed_second = second
    if REST_PAD > 0:
        if NORM:
            weight = _by_kind(q_weight_ptr, k_weight_ptr, is_query, others, others < HEAD_DIM)
            rest = tl.where(is_value[:, None], rest, rest * scale * weight)
            tl.store(source + others[None, :], rest.to(dtype), mask=rest_mask & ~is_value[:, None])
        tl.store(target + others[None, :], rest.to(dtype), mask=rest_mask & ~is_query[:, None])

    cos = tl.load(cos_ptr + token * stride_cos + pairs, mask=known, other=0.0).to(tl.float32)[None, :]
    sin = tl.load(sin_ptr + token * stride_sin + pairs, mask=known, other=0.0).to(tl.float32)[None, :]
    turned_first = normed_first * cos - normed_second * sin
    turned_second = normed_second * cos + normed_first * sin
    first = tl.where(is_value[:, None], first, turned_first).to(dtype)
    second = tl.where(is_value[:, None], second, turned_second).to(dtype)
    own = mask & ~is_value[:, None]
    tl.store(source + firsts[None, :], first, mask=own)
    tl.store(source + seconds[None, :], second, mask=own)
    cached = mask & ~is_query[:, None]
    tl.store(target + firsts[None, :], first, mask=cached)
    tl.store(target + seconds[None, :], second, mask=cached)


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
    """As `vcore.ops.qk_norm_rope_write_`, computed in float32; what the kernel does not take, the separate ops do."""
    if not heads.numel():
        return
    if not _takes(heads, cos, sin, layer_cache):
        _separately(heads, q_weight, k_weight, eps, cos, sin, interleaved, layer_cache, slot_mapping, block_offsets)
        return
    num_tokens, num_all, head_dim = heads.shape
    num_kv_heads, num_pairs = layer_cache.shape[3], cos.shape[-1]
    rest = head_dim - 2 * num_pairs
    heads_each = min(max(_ELEMENTS // triton.next_power_of_2(head_dim), 1), triton.next_power_of_2(num_all))
    early = starts_early(heads.device, num_tokens)
    _qk_norm_rope_write_kernel[(num_tokens, triton.cdiv(num_all, heads_each))](
        heads,
        q_weight,
        k_weight,
        cos,
        sin,
        layer_cache,
        slot_mapping,
        eps,
        heads.stride(0),
        heads.stride(1),
        cos.stride(0),
        sin.stride(0),
        *layer_cache.stride()[:4],
        NUM_HEADS=num_all - 2 * num_kv_heads,
        NUM_KV_HEADS=num_kv_heads,
        HEAD_DIM=head_dim,
        NUM_PAIRS=num_pairs,
        PAIRS_PAD=triton.next_power_of_2(num_pairs),
        REST_PAD=triton.next_power_of_2(rest) if rest else 0,
        BLOCK_SIZE=layer_cache.shape[2],
        HEADS=heads_each,
        NORM=q_weight is not None,
        INTERLEAVED=interleaved,
        EARLY=early,
        **({"launch_pdl": True} if early else {}),
    )


def _takes(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, layer_cache: torch.Tensor) -> bool:
    """Whether dtypes, sizes and strides are those that the kernel reads."""
    features = (heads.stride(2), cos.stride(2), sin.stride(2), layer_cache.stride(4))
    dtypes_fit = heads.dtype in _DTYPES and layer_cache.dtype == heads.dtype
    return dtypes_fit and heads.shape[2] <= _MAX_HEAD_DIM and features == (1, 1, 1, 1)
