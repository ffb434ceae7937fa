"""Gated activations of a joined projection: elementwise, one pass."""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl

from vcore.ops.triton.early_start import begin_and_wait, starts_early

__all__ = ["gelu_tanh_and_mul", "silu_and_mul"]

_BLOCK = 1024


@triton.jit
def _gate_kernel(out_ptr, x_ptr, size, stride_row, GELU: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    begin_and_wait(EARLY)
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < size
    gate = tl.load(x_ptr + row * stride_row + columns, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(x_ptr + row * stride_row + size + columns, mask=mask, other=0.0)
    if GELU:
        # gelu(x) = x * sigmoid(2 * sqrt(2 / pi) * (x + 0.044715 x^3))
        inner = 1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)
        active = gate / (1.0 + tl.exp(-inner))
    else:
        active = gate / (1.0 + tl.exp(-gate))
    # Rounded between the two steps, as the reference does.
    active = active.to(out_ptr.dtype.element_ty).to(tl.float32)
    tl.store(out_ptr + row * size + columns, (active * up.to(tl.float32)).to(out_ptr.dtype.element_ty), mask=mask)


def silu_and_mul(x: torch.Tensor) -> torch.Tensor:
    """As `vcore.ops.silu_and_mul`."""
    return _gated(x, gelu=False)


def gelu_tanh_and_mul(x: torch.Tensor) -> torch.Tensor:
    """As `vcore.ops.gelu_tanh_and_mul`."""
    return _gated(x, gelu=True)


def _gated(x: torch.Tensor, *, gelu: bool) -> torch.Tensor:
    size = x.shape[-1] // 2
    rows = x.reshape(-1, 2 * size)
    if rows.stride(-1) != 1:
        rows = rows.contiguous()
    out = torch.empty((*x.shape[:-1], size), dtype=x.dtype, device=x.device)
    if not out.numel():
        return out
    early = starts_early(x.device, rows.shape[0])
    _gate_kernel[(rows.shape[0], triton.cdiv(size, _BLOCK))](
        out,
        rows,
        size,
        rows.stride(0),
        GELU=gelu,
        BLOCK=_BLOCK,
        EARLY=early,
        **({"launch_pdl": True} if early else {}),
    )
    return out
