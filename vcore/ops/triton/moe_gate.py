"""The gate of an expert, in the epilogue of its gate and up projections."""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["gated"]


@triton.jit
def gated(gate, up, GELU: tl.constexpr):
    """``silu(gate) * up``, or with GELU the tanh approximation of that; all float32."""
    if GELU:
        # gelu(x) = x * sigmoid(2 * sqrt(2 / pi) * (x + 0.044715 x^3))
        inner = 1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)
    else:
        inner = gate
    return gate / (1.0 + tl.exp(-inner)) * up
