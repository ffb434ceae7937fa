"""Rotary position embedding in place: one program a token and some heads."""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl

from vcore.ops.triton.early_start import begin_and_wait, starts_early

__all__ = ["apply_rotary_"]

_ELEMENTS = 1024
"""Pairs that a program turns."""


@triton.jit
def _rotary_kernel(
    x_ptr,
    cos_ptr,
    sin_ptr,
    num_heads,
    stride_token,
    stride_head,
    stride_dim,
    stride_cos,
    stride_sin,
    NUM_PAIRS: tl.constexpr,
    PAIRS_PAD: tl.constexpr,
    HEADS: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin_and_wait(EARLY)
    token = tl.program_id(0).to(tl.int64)
    heads = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    pairs = tl.arange(0, PAIRS_PAD)
    known = pairs < NUM_PAIRS
    cos = tl.load(cos_ptr + token * stride_cos + pairs, mask=known, other=0.0).to(tl.float32)[None, :]
    sin = tl.load(sin_ptr + token * stride_sin + pairs, mask=known, other=0.0).to(tl.float32)[None, :]
    mask = (heads[:, None] < num_heads) & known[None, :]
    start = x_ptr + token * stride_token + heads[:, None] * stride_head
    if INTERLEAVED:
        first_ptr = start + 2 * pairs[None, :] * stride_dim
        second_ptr = first_ptr + stride_dim
    else:
        first_ptr = start + pairs[None, :] * stride_dim
        second_ptr = first_ptr + NUM_PAIRS * stride_dim
    first = tl.load(first_ptr, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(second_ptr, mask=mask, other=0.0).to(tl.float32)
    dtype = x_ptr.dtype.element_ty
    tl.store(first_ptr, (first * cos - second * sin).to(dtype), mask=mask)
    tl.store(second_ptr, (second * cos + first * sin).to(dtype), mask=mask)


def apply_rotary_(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool = False) -> None:
    """As `vcore.ops.apply_rotary_`, computed in float32."""
    num_tokens, num_heads, _ = x.shape
    if not x.numel():
        return
    num_pairs = cos.shape[-1]
    pairs_pad = triton.next_power_of_2(num_pairs)
    heads = min(max(_ELEMENTS // pairs_pad, 1), triton.next_power_of_2(num_heads))
    early = starts_early(x.device, num_tokens)
    _rotary_kernel[(num_tokens, triton.cdiv(num_heads, heads))](
        x,
        cos,
        sin,
        num_heads,
        x.stride(0),
        x.stride(1),
        x.stride(2),
        cos.stride(0),
        sin.stride(0),
        NUM_PAIRS=num_pairs,
        PAIRS_PAD=pairs_pad,
        HEADS=heads,
        INTERLEAVED=interleaved,
        EARLY=early,
        **({"launch_pdl": True} if early else {}),
    )
