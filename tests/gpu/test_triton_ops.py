"""The fused kernels of `vcore.ops` against their references.

On a CUDA device: ``pytest -m gpu tests/gpu/test_triton_ops.py``. On a CPU, with Triton installed, the same command
under ``TRITON_INTERPRET=1`` runs the kernels through Triton's interpreter.
"""

from __future__ import annotations

import os

import pytest
import torch

from vcore import ops
from vcore.ops.triton import gated_linear, gates, kv_write, linear, rms_norm, rotary

pytestmark = [pytest.mark.gpu, pytest.mark.interpreted]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Two units in the last place of a number near one, which a difference in rounding may cost."""
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(DEVICE)


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.dtype == expected.dtype
    tolerance = TOLERANCE[expected.dtype]
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@each_dtype
@pytest.mark.parametrize("shape", [(1, 64), (3, 576), (5, 2048), (2, 3, 128), (4, 4097), (0, 64)])
def test_rms_norm(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, weight = random(*shape, dtype=dtype), random(shape[-1], dtype=dtype, seed=1)
    assert_close(rms_norm.rms_norm(x, weight, 1e-5), ops.rms_norm.reference(x, weight, 1e-5))


@each_dtype
@pytest.mark.parametrize(
    ("num_tokens", "first", "stop", "size"), [(4, 2, 5, 64), (1, 0, 7, 128), (9, 1, 7, 80), (3, 0, 2, 500)]
)
def test_rms_norm_of_heads_within_a_joined_projection(
    num_tokens: int, first: int, stop: int, size: int, dtype: torch.dtype
) -> None:
    heads = random(num_tokens, 7, size, dtype=dtype)[:, first:stop]
    weight = random(size, dtype=dtype, seed=1)
    found = rms_norm.rms_norm(heads, weight, 1e-6)
    assert found.is_contiguous()
    assert_close(found, ops.rms_norm.reference(heads, weight, 1e-6))


def test_rms_norm_multiplies_by_a_float32_weight_before_it_rounds() -> None:
    x, weight = random(3, 256, dtype=torch.float16), 1 + random(256, seed=1)
    assert_close(rms_norm.rms_norm(x, weight, 1e-6), ops.rms_norm.reference(x, weight, 1e-6))


def test_rms_norm_of_what_the_kernel_does_not_take() -> None:
    for x in (random(3, 64).double(), random(64, 3).T, random(2, 3, 4, 64)[:, :, :2]):
        weight = torch.ones(x.shape[-1], dtype=x.dtype, device=DEVICE)
        torch.testing.assert_close(rms_norm.rms_norm(x, weight, 1e-6), ops.rms_norm.reference(x, weight, 1e-6))


@each_dtype
@pytest.mark.parametrize("shape", [(1, 64), (7, 1000), (3, 4096)])
def test_add_rms_norm_gives_the_norm_and_the_sum_and_changes_nothing(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x, residual, weight = (
        random(*shape, dtype=dtype),
        random(*shape, dtype=dtype, seed=1),
        random(shape[-1], dtype=dtype),
    )
    before = x.clone(), residual.clone()
    normed, total = rms_norm.add_rms_norm(x, residual, weight, 1e-5)
    expected, expected_total = ops.add_rms_norm.reference(x, residual, weight, 1e-5)
    assert torch.equal(total, expected_total)
    assert_close(normed, expected)
    assert torch.equal(x, before[0])
    assert torch.equal(residual, before[1])


@each_dtype
@pytest.mark.parametrize("shape", [(1, 2), (3, 96), (2, 5, 2 * 1500), (0, 64)])
def test_gates(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = random(*shape, dtype=dtype)
    assert_close(gates.silu_and_mul(x), ops.silu_and_mul.reference(x))
    assert_close(gates.gelu_tanh_and_mul(x), ops.gelu_tanh_and_mul.reference(x))


def test_a_gate_that_is_far_from_zero_gives_no_nan() -> None:
    x = torch.tensor([[-300.0, 300.0, -90.0, 1.0, 2.0, 3.0]], device=DEVICE)
    assert_close(gates.silu_and_mul(x), ops.silu_and_mul.reference(x))
    assert_close(gates.gelu_tanh_and_mul(x), ops.gelu_tanh_and_mul.reference(x))


@each_dtype
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("heads", "head_dim", "num_pairs"), [(3, 64, 32), (40, 128, 64), (1, 96, 24), (5, 80, 40)])
def test_rotary(heads: int, head_dim: int, num_pairs: int, interleaved: bool, dtype: torch.dtype) -> None:
    joined = random(4, heads + 2, head_dim, dtype=dtype)
    angles = random(4, 1, num_pairs, seed=1)
    table = torch.cat((angles.cos(), angles.sin()), -1)  # as the layer cuts them
    cos, sin = table.chunk(2, -1)
    expected = joined.clone()
    ops.apply_rotary_.reference(expected[:, :heads], cos, sin, interleaved)
    rotary.apply_rotary_(joined[:, :heads], cos, sin, interleaved)
    assert_close(joined, expected)


@each_dtype
@pytest.mark.parametrize(("heads", "head_dim", "block_size"), [(2, 64, 16), (3, 80, 5), (8, 128, 16)])
def test_kv_write_fills_exactly_the_slots(heads: int, head_dim: int, block_size: int, dtype: torch.dtype) -> None:
    joined = random(6, 2 * heads + 1, head_dim, dtype=dtype)
    k, v = joined[:, 1 : heads + 1], joined[:, heads + 1 :]
    slots = torch.tensor([3, 11, 0, 4 * block_size - 1, 2 * block_size, 7], device=DEVICE)
    found = torch.full((4, 2, block_size, heads, head_dim), 7.0, dtype=dtype, device=DEVICE)
    expected = found.clone()
    kv_write.kv_write(k, v, found, slots)
    ops.kv_write.reference(k, v, expected, slots)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != torch.float32], ids=str)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("features", "size"), [(1, 32), (7, 576), (130, 2048), (64, 3000), (9, 8192)])
def test_a_row_times_a_weight(features: int, size: int, with_bias: bool, dtype: torch.dtype) -> None:
    x, weight = random(1, size, dtype=dtype), random(features, size, dtype=dtype, seed=1) / size**0.5
    bias = random(features, dtype=dtype, seed=2) if with_bias else None
    exact = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    found = linear.linear(x, weight, bias)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_other_products_are_those_of_the_reference() -> None:
    weight = random(5, 32)
    for x in (random(1, 32), random(3, 32), random(0, 32), random(2, 2, 32)):
        assert_close(linear.linear(x, weight), ops.linear.reference(x, weight))


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != torch.float32], ids=str)
@pytest.mark.parametrize(("size", "num_features"), [(64, 30), (2048, 5), (576, 64), (4096, 6), (5000, 3)])
@pytest.mark.parametrize("gate", [ops.silu_and_mul, ops.gelu_tanh_and_mul], ids=["silu", "gelu"])
def test_a_projection_with_its_gate(size: int, num_features: int, gate, dtype: torch.dtype, monkeypatch) -> None:
    monkeypatch.setattr(gated_linear, "reference_op", None)  # the kernel takes all of these
    x = random(1, size, dtype=dtype)
    weight = random(2 * num_features, size + 8, dtype=dtype, seed=1)[:, :size] / size**0.5
    found = gated_linear.gated_linear(x, weight, None, gate)
    assert found.shape == (1, num_features)
    assert_close(found, gate.reference((x.double() @ weight.double().T).to(dtype)))


def test_what_the_kernel_of_a_projection_with_its_gate_does_not_take() -> None:
    x, weight, bias = random(2, 64), random(12, 64, seed=1), random(12, seed=2)
    assert_close(
        gated_linear.gated_linear(x, weight, bias, ops.silu_and_mul),
        ops.silu_and_mul.reference(torch.nn.functional.linear(x, weight, bias)),
    )


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != torch.float32], ids=str)
@pytest.mark.parametrize("num_tokens", [1] if INTERPRETED else [1, 3, 300])
def test_products_that_stay_wide(num_tokens: int, dtype: torch.dtype) -> None:
    x, weight = random(num_tokens, 2048, dtype=dtype), random(64, 2048, dtype=dtype, seed=1) / 2048**0.5
    found = linear.wide_linear(x, weight)
    assert found.dtype == torch.float32
    # Closer to the product than its rounding to half precision would be.
    torch.testing.assert_close(found.double(), x.double() @ weight.double().T, rtol=1e-5, atol=1e-5)
