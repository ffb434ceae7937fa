"""Products of each head with its own matrix, of a few tokens: bound by reading the matrices and by starting.

A program's part of the matrix is on the way before the kernel that computes its input is done. Nothing is summed
across programs.
"""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl

from vcore.ops.latent_heads import absorb_queries as absorb_op
from vcore.ops.latent_heads import latent_values as values_op
from vcore.ops.triton.early_start import begin, can_start_early, wait

__all__ = ["absorb_queries", "latent_values"]

_DTYPES = frozenset({torch.bfloat16, torch.float16})
_MAX_TOKENS = 4
"""Each token reads the matrices again, if from the cache; from here on cuBLAS is faster."""
_ELEMENTS = 8192
"""Of a matrix, a program."""


@triton.jit
def _absorb_kernel(
    out_ptr,
    q_ptr,
    weight_ptr,
    stride_out_token,
    stride_out_head,
    stride_q_token,
    stride_q_head,
    stride_weight_head,
    stride_weight_row,
    NOPE: tl.constexpr,
    NOPE_PAD: tl.constexpr,
    RANK: tl.constexpr,
    ROPE: tl.constexpr,
    ROPE_PAD: tl.constexpr,
    BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin(EARLY)
    head, token = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    rows = tl.arange(0, NOPE_PAD)
    weight_ptrs = weight_ptr + head * stride_weight_head + rows[:, None] * stride_weight_row + columns[None, :]
    weight = tl.load(weight_ptrs, mask=(rows < NOPE)[:, None] & (columns < RANK)[None, :], other=0.0)
    wait(EARLY)
    source = q_ptr + token * stride_q_token + head * stride_q_head
    target = out_ptr + token * stride_out_token + head * stride_out_head
    q = tl.load(source + rows, mask=rows < NOPE, other=0.0).to(tl.float32)
    absorbed = tl.sum(weight.to(tl.float32) * q[:, None], 0)
    tl.store(target + columns, absorbed.to(out_ptr.dtype.element_ty), mask=columns < RANK)
    if tl.program_id(0) == 0:
        rotary = tl.arange(0, ROPE_PAD)
        tl.store(target + RANK + rotary, tl.load(source + NOPE + rotary, mask=rotary < ROPE), mask=rotary < ROPE)


@triton.jit
def _values_kernel(
    out_ptr,
    attended_ptr,
    weight_ptr,
    stride_out_token,
    stride_out_head,
    stride_token,
    stride_head,
    stride_weight_head,
    stride_weight_row,
    SIZE: tl.constexpr,
    RANK: tl.constexpr,
    RANK_PAD: tl.constexpr,
    BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin(EARLY)
    head, token = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    columns = tl.arange(0, RANK_PAD)
    weight_ptrs = weight_ptr + head * stride_weight_head + rows[:, None] * stride_weight_row + columns[None, :]
    weight = tl.load(weight_ptrs, mask=(rows < SIZE)[:, None] & (columns < RANK)[None, :], other=0.0)
    wait(EARLY)
    attended = tl.load(attended_ptr + token * stride_token + head * stride_head + columns, mask=columns < RANK, other=0)
    values = tl.sum(weight.to(tl.float32) * attended.to(tl.float32)[None, :], 1)
    target = out_ptr + token * stride_out_token + head * stride_out_head + rows
    tl.store(target, values.to(out_ptr.dtype.element_ty), mask=rows < SIZE)


def absorb_queries(q: torch.Tensor, w_uk: torch.Tensor) -> torch.Tensor:
    """As `vcore.ops.absorb_queries`: a few tokens in half precision by the kernel here, everything else by cuBLAS."""
    if not _takes(q, w_uk):
        return absorb_op.reference(q, w_uk)
    num_tokens, num_heads, size = q.shape
    num_nope, rank = w_uk.shape[1:]
    out = q.new_empty((num_tokens, num_heads, rank + size - num_nope))
    nope_pad = triton.next_power_of_2(num_nope)
    block = max(_ELEMENTS // nope_pad, 1)
    early = can_start_early(q.device)
    _absorb_kernel[(triton.cdiv(rank, block), num_heads, num_tokens)](
        out,
        q,
        w_uk,
        *out.stride()[:2],
        *q.stride()[:2],
        *w_uk.stride()[:2],
        NOPE=num_nope,
        NOPE_PAD=nope_pad,
        RANK=rank,
        ROPE=size - num_nope,
        ROPE_PAD=triton.next_power_of_2(size - num_nope),
        BLOCK=block,
        EARLY=early,
        **({"launch_pdl": True} if early else {}),
    )
    return out


def latent_values(attended: torch.Tensor, w_uv: torch.Tensor) -> torch.Tensor:
    """As `vcore.ops.latent_values`: a few tokens in half precision by the kernel here, everything else by cuBLAS."""
    if not _takes(attended, w_uv):
        return values_op.reference(attended, w_uv)
    num_tokens, num_heads, rank = attended.shape
    num_features = w_uv.shape[1]
    out = attended.new_empty((num_tokens, num_heads, num_features))
    rank_pad = triton.next_power_of_2(rank)
    block = max(_ELEMENTS // rank_pad, 1)
    early = can_start_early(attended.device)
    _values_kernel[(triton.cdiv(num_features, block), num_heads, num_tokens)](
        out,
        attended,
        w_uv,
        *out.stride()[:2],
        *attended.stride()[:2],
        *w_uv.stride()[:2],
        SIZE=num_features,
        RANK=rank,
        RANK_PAD=rank_pad,
        BLOCK=block,
        EARLY=early,
        **({"launch_pdl": True} if early else {}),
    )
    return out


def _takes(x: torch.Tensor, weight: torch.Tensor) -> bool:
    few = 0 < x.shape[0] <= _MAX_TOKENS
    return few and x.dtype in _DTYPES and weight.dtype == x.dtype and x.stride(2) == weight.stride(2) == 1
