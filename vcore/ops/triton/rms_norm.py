"""Root mean square normalisation, alone, and with the addition that stands before it.

A program takes one row, or several short ones, such as heads.
"""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl

from vcore.ops import rms_norm as reference
from vcore.ops.triton.early_start import begin_and_wait, starts_early

__all__ = ["add_rms_norm", "rms_norm"]

_DTYPES = frozenset({torch.bfloat16, torch.float16, torch.float32})
_MAX_SIZE = 1 << 15
"""The longest row that one program holds in registers."""
_SHORT_ELEMENTS = 1024
"""Elements of a program of several rows."""


@triton.jit
def _rms_norm_kernel(
    out_ptr,
    total_ptr,
    x_ptr,
    residual_ptr,
    weight_ptr,
    eps,
    num_inner,
    stride_outer,
    stride_inner,
    SIZE: tl.constexpr,
    SIZE_PAD: tl.constexpr,
    ADD: tl.constexpr,
    EARLY: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, SIZE_PAD)
    mask = columns < SIZE
    weight = tl.load(weight_ptr + columns, mask=mask, other=0.0).to(tl.float32)
    begin_and_wait(EARLY)
    start = row // num_inner * stride_outer + row % num_inner * stride_inner
    x = tl.load(x_ptr + start + columns, mask=mask, other=0.0).to(tl.float32)
    if ADD:
        x += tl.load(residual_ptr + row * SIZE + columns, mask=mask, other=0.0).to(tl.float32)
        # The norm is that of the sum as it is stored.
        total = x.to(total_ptr.dtype.element_ty)
        tl.store(total_ptr + row * SIZE + columns, total, mask=mask)
        x = total.to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, 0) / SIZE + eps)
    tl.store(out_ptr + row * SIZE + columns, (x * scale * weight).to(out_ptr.dtype.element_ty), mask=mask)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """As `vcore.ops.rms_norm`."""
    rows = _as_rows(x)
    if rows is None:
        return reference.reference(x, weight, eps)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if rows.numel() and 2 * x.shape[-1] <= _SHORT_ELEMENTS and rows.shape[1] > 1:
        _launch_short(out, rows, weight, eps)
    else:
        _launch(out, out, rows, rows, weight, eps, add=False)
    return out


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `vcore.ops.add_rms_norm`."""
    rows = _as_rows(x)
    if rows is None or not residual.is_contiguous():
        total = x + residual
        return rms_norm(total, weight, eps), total
    out, total = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(2))
    _launch(out, total, rows, residual, weight, eps, add=True)
    return out, total


def _as_rows(x: torch.Tensor) -> torch.Tensor | None:
    """`x` as [outer, inner, size] with a contiguous last axis; None if the kernel does not take it."""
    if x.dtype not in _DTYPES or x.shape[-1] > _MAX_SIZE or x.stride(-1) != 1:
        return None
    if x.dim() == 2:
        return x.unsqueeze(1)
    if x.dim() == 3:
        return x
    return x.view(-1, 1, x.shape[-1]) if x.is_contiguous() else None


@triton.jit(do_not_specialize=["num_rows"])
def _short_rows_kernel(
    out_ptr,
    x_ptr,
    weight_ptr,
    eps,
    num_rows,
    num_inner,
    stride_outer,
    stride_inner,
    SIZE: tl.constexpr,
    SIZE_PAD: tl.constexpr,
    ROWS: tl.constexpr,
    EARLY: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, SIZE_PAD)
    mask = (rows < num_rows)[:, None] & (columns < SIZE)[None, :]
    weight = tl.load(weight_ptr + columns, mask=columns < SIZE, other=0.0).to(tl.float32)
    begin_and_wait(EARLY)
    starts = rows // num_inner * stride_outer + rows % num_inner * stride_inner
    x = tl.load(x_ptr + starts[:, None] + columns[None, :], mask=mask, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, 1) / SIZE + eps)
    result = x * scale[:, None] * weight[None, :]
    tl.store(out_ptr + rows[:, None] * SIZE + columns[None, :], result.to(out_ptr.dtype.element_ty), mask=mask)


def _launch_short(out: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor, eps: float) -> None:
    num_outer, num_inner, size = rows.shape
    num_rows, size_pad = num_outer * num_inner, triton.next_power_of_2(size)
    rows_each = _SHORT_ELEMENTS // size_pad
    early = starts_early(rows.device, num_outer)
    _short_rows_kernel[(triton.cdiv(num_rows, rows_each),)](
        out,
        rows,
        weight,
        eps,
        num_rows,
        num_inner,
        rows.stride(0),
        rows.stride(1),
        SIZE=size,
        SIZE_PAD=size_pad,
        ROWS=rows_each,
        EARLY=early,
        **({"launch_pdl": True} if early else {}),
    )


def _launch(
    out: torch.Tensor,
    total: torch.Tensor,
    rows: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    *,
    add: bool,
) -> None:
    num_outer, num_inner, size = rows.shape
    if not rows.numel():
        return
    size_pad = triton.next_power_of_2(size)
    early = starts_early(rows.device, num_outer)
    _rms_norm_kernel[(num_outer * num_inner,)](
        out,
        total,
        rows,
        residual,
        weight,
        eps,
        num_inner,
        rows.stride(0),
        rows.stride(1),
        SIZE=size,
        SIZE_PAD=size_pad,
        ADD=add,
        EARLY=early,
        num_warps=min(max(size_pad // 512, 1), 16),
        **({"launch_pdl": True} if early else {}),
    )
