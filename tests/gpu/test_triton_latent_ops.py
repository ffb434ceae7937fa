"""The kernels between the projections of latent attention and its backend against their references.

On a CUDA device: ``pytest -m gpu tests/gpu/test_triton_latent_ops.py``. On a CPU, with Triton installed, the same
command under ``TRITON_INTERPRET=1`` runs the kernels through Triton's interpreter.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from vcore import ops
from vcore.ops.triton import latent_heads, latent_norm_rope_write

pytestmark = [pytest.mark.gpu, pytest.mark.interpreted]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
HALF = torch.float16 if INTERPRETED else torch.bfloat16
DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Two units in the last place of a number near one, which a difference in rounding may cost."""


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(DEVICE)


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = TOLERANCE[expected.dtype]
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


# Norm, rotation, cache write


def arguments(
    num_tokens: int = 3,
    num_heads: int = 4,
    rank: int = 64,
    num_pairs: int = 8,
    *,
    interleaved: bool = True,
    dtype: torch.dtype = torch.float32,
    block_size: int = 16,
) -> dict[str, Any]:
    """The op's arguments; latents and queries are slices of wider projections, the cache of a pool."""
    size = rank + 2 * num_pairs
    table = random(num_tokens, 2 * num_pairs, seed=1)
    pool = torch.full((6, 2, block_size, size), float("nan"), dtype=dtype, device=DEVICE)
    slots = torch.randperm(5 * block_size, generator=torch.Generator().manual_seed(2))[:num_tokens] + block_size
    return {
        "latent": random(num_tokens, size + 8, dtype=dtype)[:, :size],
        "q_rope": random(num_tokens, num_heads, 24 + 2 * num_pairs, dtype=dtype, seed=3)[..., 24:],
        "weight": (1 + 0.5 * random(rank, seed=4)).to(dtype),
        "eps": 1e-5,
        "cos": table[:, None, :num_pairs],
        "sin": table[:, None, num_pairs:],
        "interleaved": interleaved,
        "layer_cache": pool[:, 1],
        "slot_mapping": slots.to(DEVICE),
    }


def check(given: dict[str, Any]) -> None:
    changed = ("latent", "q_rope", "layer_cache")
    expected = given | {name: given[name].clone() for name in changed}
    ops.latent_norm_rope_write_.reference(**expected)
    latent_norm_rope_write.latent_norm_rope_write_(**given)
    for name in changed:
        assert_close(given[name], expected[name])


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel must take what is given."""
    monkeypatch.setattr(latent_norm_rope_write, "_separately", None)


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("interleaved", [True, False])
def test_each_dtype_and_kind_of_rotation(dtype: torch.dtype, interleaved: bool) -> None:
    check(arguments(dtype=dtype, interleaved=interleaved))


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize(
    ("num_heads", "rank", "num_pairs"), [(16, 512, 32), (1, 80, 3), (5, 40, 16), (40, 16, 32), (128, 64, 1)]
)
def test_shapes(num_heads: int, rank: int, num_pairs: int) -> None:
    check(arguments(2, num_heads, rank, num_pairs))


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("block_size", [1, 16, 48])
def test_block_sizes(block_size: int) -> None:
    check(arguments(num_tokens=5, block_size=block_size))


@pytest.mark.usefixtures("fused")
@pytest.mark.skipif(INTERPRETED, reason="large batches take the interpreter minutes")
@pytest.mark.parametrize("num_tokens", [1, 64, 65, 4000])
def test_large_batches(num_tokens: int) -> None:
    check(arguments(num_tokens, 16, 512, 32, dtype=torch.bfloat16, block_size=1024))


def test_no_tokens() -> None:
    check(arguments(num_tokens=0))


def test_what_the_kernel_does_not_take_goes_to_the_separate_ops() -> None:
    given = arguments()
    given["layer_cache"] = given["layer_cache"].contiguous()
    given["q_rope"] = given["q_rope"].transpose(1, 2).contiguous().transpose(1, 2)
    check(given)
    partly_turned = arguments(num_pairs=8)
    partly_turned["layer_cache"] = partly_turned["layer_cache"].contiguous()
    partly_turned |= {name: partly_turned[name][..., :6] for name in ("cos", "sin")}
    check(partly_turned)


# Products of heads


@pytest.mark.parametrize("num_tokens", [1, 3, 4, 5, 20])
@pytest.mark.parametrize(
    ("num_heads", "nope", "value", "rank", "rope"), [(3, 24, 40, 80, 12), (2, 64, 32, 512, 64), (16, 128, 128, 512, 64)]
)
def test_products_of_heads(num_tokens: int, num_heads: int, nope: int, value: int, rank: int, rope: int) -> None:
    joined = random(num_heads, nope + value, rank, dtype=HALF) / rank**0.5
    w_uk, w_uv = joined.split((nope, value), 1)
    q = random(num_tokens, num_heads, nope + rope + 8, dtype=HALF, seed=1)[..., : nope + rope]
    absorbed = latent_heads.absorb_queries(q, w_uk)
    assert absorbed.is_contiguous()
    exact = torch.einsum("thn,hnr->thr", q[..., :nope].double(), w_uk.double())
    assert_close(absorbed[..., :rank], exact.to(HALF))
    assert torch.equal(absorbed[..., rank:], q[..., nope:])
    attended = random(num_tokens, num_heads, 2 * rank, dtype=HALF, seed=2)[..., :rank]
    values = latent_heads.latent_values(attended, w_uv)
    assert values.is_contiguous()
    assert_close(values, torch.einsum("thr,hvr->thv", attended.double(), w_uv.double()).to(HALF))


def test_few_tokens_take_the_kernels_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    q, w_uk = random(4, 2, 24, dtype=HALF), random(2, 16, 32, dtype=HALF)
    with monkeypatch.context() as patch:
        for name in ("absorb_op", "values_op"):
            patch.setattr(latent_heads, name, None)
        latent_heads.absorb_queries(q, w_uk)
        latent_heads.latent_values(random(4, 2, 32, dtype=HALF), w_uk)
    with monkeypatch.context() as patch:
        for name in ("_absorb_kernel", "_values_kernel"):
            patch.setattr(latent_heads, name, None)
        for wide in (torch.float32, HALF):
            num_tokens = 4 if wide == torch.float32 else 5
            assert latent_heads.absorb_queries(random(num_tokens, 2, 24, dtype=wide), w_uk.to(wide)).dtype == wide
            assert latent_heads.latent_values(random(num_tokens, 2, 32, dtype=wide), w_uk.to(wide)).dtype == wide
