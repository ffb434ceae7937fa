"""A latent's norm, the rotation of keys and queries, and the cache write in one pass.

Of a token, one program takes the latent, and others some heads' queries each.
"""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl

from vcore.ops.latent_norm_rope_write import latent_norm_rope_write_ as reference_op
from vcore.ops.triton.early_start import begin, starts_early, wait

__all__ = ["latent_norm_rope_write_"]

_DTYPES = frozenset({torch.bfloat16, torch.float16, torch.float32})
_PAIRS = 512
"""Pairs that a program of queries turns."""
_separately = reference_op.reference


@triton.jit
def _pair_ptrs(start, pairs, NUM_PAIRS: tl.constexpr, INTERLEAVED: tl.constexpr):
    """Where the two features of each pair stand."""
    if INTERLEAVED:
        return start + 2 * pairs, start + 2 * pairs + 1
    else:
        return start + pairs, start + NUM_PAIRS + pairs


@triton.jit
def _latent_norm_rope_write_kernel(
    latent_ptr,
    q_ptr,
    weight_ptr,
    cos_ptr,
    sin_ptr,
    cache_ptr,
    slot_mapping_ptr,
    eps,
    num_heads,
    stride_latent,
    stride_q_token,
    stride_q_head,
    stride_cos,
    stride_sin,
    stride_block,
    stride_slot,
    RANK: tl.constexpr,
    RANK_PAD: tl.constexpr,
    NUM_PAIRS: tl.constexpr,
    PAIRS_PAD: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin(EARLY)
    token = tl.program_id(0).to(tl.int64)
    dims = tl.arange(0, RANK_PAD)
    weight = tl.load(weight_ptr + dims, mask=dims < RANK, other=0.0).to(tl.float32)
    pairs = tl.arange(0, PAIRS_PAD)
    known = pairs < NUM_PAIRS
    wait(EARLY)
    cos = tl.load(cos_ptr + token * stride_cos + pairs, mask=known, other=0.0).to(tl.float32)
    sin = tl.load(sin_ptr + token * stride_sin + pairs, mask=known, other=0.0).to(tl.float32)
    dtype = latent_ptr.dtype.element_ty
    if tl.program_id(1) == 0:
        slot = tl.load(slot_mapping_ptr + token)
        place = cache_ptr + slot // BLOCK_SIZE * stride_block + slot % BLOCK_SIZE * stride_slot
        source = latent_ptr + token * stride_latent
        x = tl.load(source + dims, mask=dims < RANK, other=0.0).to(tl.float32)
        normed = (x * tl.rsqrt(tl.sum(x * x, 0) / RANK + eps) * weight).to(dtype)
        tl.store(source + dims, normed, mask=dims < RANK)
        tl.store(place + dims, normed, mask=dims < RANK)
        first_ptr, second_ptr = _pair_ptrs(source + RANK, pairs, NUM_PAIRS, INTERLEAVED)
        first = tl.load(first_ptr, mask=known, other=0.0).to(tl.float32)
        second = tl.load(second_ptr, mask=known, other=0.0).to(tl.float32)
        turned_first = (first * cos - second * sin).to(dtype)
        turned_second = (second * cos + first * sin).to(dtype)
        tl.store(first_ptr, turned_first, mask=known)
        tl.store(second_ptr, turned_second, mask=known)
        first_ptr, second_ptr = _pair_ptrs(place + RANK, pairs, NUM_PAIRS, INTERLEAVED)
        tl.store(first_ptr, turned_first, mask=known)
        tl.store(second_ptr, turned_second, mask=known)
    else:
        # Names of their own: Triton gives a name one shape in both branches.
        heads = (tl.program_id(1) - 1) * HEADS + tl.arange(0, HEADS)
        mask = (heads[:, None] < num_heads) & known[None, :]
        q_start = q_ptr + token * stride_q_token + heads[:, None] * stride_q_head
        q_first_ptr, q_second_ptr = _pair_ptrs(q_start, pairs[None, :], NUM_PAIRS, INTERLEAVED)
        q_first = tl.load(q_first_ptr, mask=mask, other=0.0).to(tl.float32)
        q_second = tl.load(q_second_ptr, mask=mask, other=0.0).to(tl.float32)
        tl.store(q_first_ptr, (q_first * cos[None, :] - q_second * sin[None, :]).to(dtype), mask=mask)
        tl.store(q_second_ptr, (q_second * cos[None, :] + q_first * sin[None, :]).to(dtype), mask=mask)


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
    """As the op, computed in float32; what the kernel does not take, the separate ops do."""
    if not latent.numel():
        return
    rank, num_pairs = weight.shape[0], cos.shape[-1]
    if not _takes(latent, q_rope, cos, sin, layer_cache) or latent.shape[1] != rank + 2 * num_pairs:
        _separately(latent, q_rope, weight, eps, cos, sin, interleaved, layer_cache, slot_mapping)
        return
    num_tokens, num_heads, _ = q_rope.shape
    pairs_pad = triton.next_power_of_2(num_pairs)
    heads = min(max(_PAIRS // pairs_pad, 1), triton.next_power_of_2(num_heads))
    early = starts_early(latent.device, num_tokens)
    _latent_norm_rope_write_kernel[(num_tokens, 1 + triton.cdiv(num_heads, heads))](
        latent,
        q_rope,
        weight,
        cos,
        sin,
        layer_cache,
        slot_mapping,
        eps,
        num_heads,
        latent.stride(0),
        q_rope.stride(0),
        q_rope.stride(1),
        cos.stride(0),
        sin.stride(0),
        layer_cache.stride(0),
        layer_cache.stride(1),
        RANK=rank,
        RANK_PAD=triton.next_power_of_2(rank),
        NUM_PAIRS=num_pairs,
        PAIRS_PAD=pairs_pad,
        HEADS=heads,
        BLOCK_SIZE=layer_cache.shape[1],
        INTERLEAVED=interleaved,
        EARLY=early,
        **({"launch_pdl": True} if early else {}),
    )


def _takes(
    latent: torch.Tensor, q_rope: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, layer_cache: torch.Tensor
) -> bool:
    """Whether dtypes and strides are those that the kernel reads."""
    features = (latent.stride(1), q_rope.stride(2), cos.stride(2), sin.stride(2), layer_cache.stride(2))
    return latent.dtype in _DTYPES and q_rope.dtype == layer_cache.dtype == latent.dtype and features == (1,) * 5
