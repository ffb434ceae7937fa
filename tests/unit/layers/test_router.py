"""The router keeps weights of half precision as they are, and computes in float32 all the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from vcore.interfaces.model import BuildContext
from vcore.layers.router import Router

Builder = Callable[..., BuildContext]


def build(context: BuildContext, weight: torch.Tensor) -> Router:
    router = Router(context, weight.shape[1], weight.shape[0], torch.float32)
    router.weight.copy_(weight)
    router.weights_loaded()
    return router


@pytest.mark.parametrize("is_exact", [True, False])
def test_logits_are_those_of_float32(build_context: Builder, is_exact: bool) -> None:
    weight, x = torch.randn(6, 32), torch.randn(5, 32).bfloat16()
    weight = weight.bfloat16().float() if is_exact else weight
    router = build(build_context(dtype=torch.bfloat16), weight)
    assert router.weight.dtype == (torch.bfloat16 if is_exact else torch.float32)
    logits = router(x)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, x.float() @ weight.T)


def test_a_model_in_float32_has_a_linear_layer(build_context: Builder) -> None:
    weight, x = torch.randn(6, 32).bfloat16().float(), torch.randn(5, 32)
    router = build(build_context(), weight)
    assert router.weight.dtype == torch.float32
    torch.testing.assert_close(router(x), x @ weight.T)


def test_in_the_model_s_own_dtype_logits_are_rounded_to_it(build_context: Builder) -> None:
    router = Router(build_context(dtype=torch.bfloat16), 32, 6, torch.bfloat16)
    router.weight.fill_(0.5)
    router.weights_loaded()
    assert router(torch.ones(2, 32).bfloat16()).dtype == torch.bfloat16
