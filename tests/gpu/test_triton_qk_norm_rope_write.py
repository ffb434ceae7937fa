"""The fused kernel between projection and attention against its reference.

On a CUDA device: ``pytest -m gpu tests/gpu/test_triton_qk_norm_rope_write.py``. On a CPU, with Triton installed, the
same command under ``TRITON_INTERPRET=1`` runs the kernel through Triton's interpreter.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from vcore import ops
from vcore.ops.triton import qk_norm_rope_write as kernel

pytestmark = [pytest.mark.gpu, pytest.mark.interpreted]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Two units in the last place of a number near one, which a difference in rounding may cost."""


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(DEVICE)


def arguments(
    num_tokens: int = 3,
    num_heads: int = 4,
    num_kv_heads: int = 2,
    head_dim: int = 64,
    num_pairs: int = 32,
    *,
    norm: bool = True,
    interleaved: bool = False,
    dtype: torch.dtype = torch.float32,
    block_size: int = 16,
    weight_dtype: torch.dtype | None = None,
) -> dict[str, Any]:
    """The op's arguments; heads are a slice of a wider projection, cos and sin of one table, the cache of a pool."""
    num_all = num_heads + 2 * num_kv_heads
    joined = random(num_tokens, num_all * head_dim + 8, dtype=dtype)
    table = random(num_tokens, 2 * num_pairs, seed=1)
    pool = torch.full((6, 2, 2, block_size, num_kv_heads, head_dim), float("nan"), dtype=dtype, device=DEVICE)
    slots = torch.randperm(5 * block_size, generator=torch.Generator().manual_seed(2))[:num_tokens] + block_size
    weights = [1 + 0.5 * random(head_dim, seed=seed) for seed in (3, 4)]
    return {
        "heads": joined[:, : num_all * head_dim].unflatten(1, (num_all, head_dim)),
        "q_weight": weights[0].to(weight_dtype or dtype) if norm else None,
        "k_weight": weights[1].to(weight_dtype or dtype) if norm else None,
        "eps": 1e-5,
        "cos": table[:, None, :num_pairs],
        "sin": table[:, None, num_pairs:],
        "interleaved": interleaved,
        "layer_cache": pool[:, 1],
        "slot_mapping": slots.to(DEVICE),
    }


def check(given: dict[str, Any]) -> None:
    expected = given | {name: given[name].clone() for name in ("heads", "layer_cache")}
    heads = expected.pop("heads")
    ops.qk_norm_rope_write_.reference(heads, **expected)
    values = given["heads"][:, -given["layer_cache"].shape[3] :].clone()
    found = dict(given)
    kernel.qk_norm_rope_write_(found.pop("heads"), **found)
    tolerance = TOLERANCE[heads.dtype]
    torch.testing.assert_close(given["heads"], heads, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(
        given["layer_cache"], expected["layer_cache"], rtol=tolerance, atol=tolerance, equal_nan=True
    )
    assert torch.equal(given["heads"][:, -values.shape[1] :], values)


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel must take what is given."""

    def refuse(*_: Any) -> None:
        raise AssertionError("the separate ops were called")

    monkeypatch.setattr(kernel, "_separately", refuse)


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("interleaved", [True, False])
def test_each_dtype_with_and_without_norms(dtype: torch.dtype, norm: bool, interleaved: bool) -> None:
    check(arguments(norm=norm, interleaved=interleaved, dtype=dtype))


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize(
    ("num_heads", "num_kv_heads", "head_dim"), [(16, 8, 128), (7, 1, 80), (1, 1, 256), (32, 8, 64), (4, 4, 96)]
)
def test_shapes_of_heads(num_heads: int, num_kv_heads: int, head_dim: int) -> None:
    check(arguments(2, num_heads, num_kv_heads, head_dim, head_dim // 2))


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize(("head_dim", "num_pairs"), [(64, 16), (80, 16), (64, 12)])
def test_features_that_are_not_turned(head_dim: int, num_pairs: int, interleaved: bool, norm: bool) -> None:
    check(arguments(head_dim=head_dim, num_pairs=num_pairs, interleaved=interleaved, norm=norm))


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("block_size", [1, 16, 48])
def test_block_sizes(block_size: int) -> None:
    check(arguments(num_tokens=5, block_size=block_size))


@pytest.mark.usefixtures("fused")
def test_float32_weights_multiply_before_halves_are_rounded() -> None:
    check(arguments(dtype=torch.float16, weight_dtype=torch.float32))


@pytest.mark.usefixtures("fused")
@pytest.mark.skipif(INTERPRETED, reason="large batches take the interpreter minutes")
@pytest.mark.parametrize("num_tokens", [1, 64, 65, 4000])
def test_large_batches(num_tokens: int) -> None:
    check(arguments(num_tokens, 16, 8, 128, 64, dtype=torch.bfloat16, block_size=1024))


def test_no_tokens() -> None:
    check(arguments(num_tokens=0))


def test_what_the_kernel_does_not_take_goes_to_the_separate_ops() -> None:
    given = arguments()
    given["heads"] = given["heads"].transpose(1, 2).contiguous().transpose(1, 2)
    check(given)
    check(arguments(num_tokens=1, num_heads=1, num_kv_heads=1, head_dim=2048, num_pairs=1024))
