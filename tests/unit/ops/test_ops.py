"""Each op's reference against its formula, written out."""

from __future__ import annotations

import sys

import pytest
import torch

from vcore.ops import add_rms_norm, apply_rotary_, kv_write, linear, pack_linear_weight, rms_norm, silu_and_mul


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_rms_norm_divides_by_the_root_mean_square():
    x, weight = torch.randn(5, 12), torch.randn(12)
    expected = torch.stack([row / (sum(v * v for v in row) / 12 + 1e-5) ** 0.5 * weight for row in x])
    torch.testing.assert_close(rms_norm(x, weight, 1e-5), expected)


def test_rms_norm_of_halves_takes_the_mean_in_float32():
    x = torch.full((1, 8), 300.0, dtype=torch.float16)  # whose square no float16 holds
    torch.testing.assert_close(rms_norm(x, torch.ones(8, dtype=torch.float16), 1e-5), torch.ones_like(x))


def test_add_rms_norm_returns_the_sum_and_changes_nothing():
    x, residual, weight = torch.randn(3, 8), torch.randn(3, 8), torch.randn(8)
    before = x.clone(), residual.clone()
    normed, total = add_rms_norm(x, residual, weight, 1e-6)
    torch.testing.assert_close(total, before[0] + before[1])
    torch.testing.assert_close(normed, rms_norm(total, weight, 1e-6))
    assert torch.equal(x, before[0])
    assert torch.equal(residual, before[1])


def test_silu_and_mul_gates_the_second_half_by_the_first():
    x = torch.randn(4, 10)
    gate, up = x[:, :5].clone(), x[:, 5:].clone()
    torch.testing.assert_close(silu_and_mul(x), gate / (1 + (-gate).exp()) * up)
    assert torch.equal(x, torch.cat((gate, up), 1))


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("rotary_dim", [8, 4])
def test_rotary_multiplies_complex_pairs(interleaved: bool, rotary_dim: int):
    x, angles = torch.randn(3, 2, 8), torch.randn(3, 1, rotary_dim // 2)
    turned = x[..., :rotary_dim]
    pairs = turned.unflatten(-1, (-1, 2)) if interleaved else turned.unflatten(-1, (2, -1)).transpose(-1, -2)
    product = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * torch.exp(1j * angles))
    expected = product.flatten(-2) if interleaved else product.transpose(-1, -2).flatten(-2)
    expected = torch.cat((expected, x[..., rotary_dim:]), -1)
    apply_rotary_(x, angles.cos(), angles.sin(), interleaved)
    torch.testing.assert_close(x, expected)


def test_rotary_of_bfloat16_is_computed_in_float32():
    x, angles = torch.randn(4, 3, 16).bfloat16(), torch.randn(4, 1, 8)
    exact = x.float()
    apply_rotary_(exact, angles.cos(), angles.sin())
    apply_rotary_(x, angles.cos(), angles.sin())
    assert torch.equal(x, exact.bfloat16())


def test_rotary_leaves_what_lies_beside_a_view():
    joined = torch.randn(3, 5, 4)
    values = joined[:, 3:].clone()
    apply_rotary_(joined[:, :3], torch.zeros(3, 1, 2), torch.ones(3, 1, 2))
    assert torch.equal(joined[:, 3:], values)


@pytest.mark.parametrize("block_size", [1, 4])
@pytest.mark.parametrize("given_offsets", [False, True])
def test_kv_write_fills_exactly_the_slots(block_size: int, given_offsets: bool):
    cache = torch.full((6, 2, block_size, 2, 3), float("nan"))
    slots = torch.randperm(6 * block_size)[:5]
    joined = torch.randn(5, 7, 3)
    k, v = joined[:, 1:3], joined[:, 4:6]  # views with strides, as a joined projection gives
    offsets = (slots // block_size, slots % block_size) if given_offsets else None
    kv_write(k, v, cache, slots, offsets)
    for token, slot in enumerate(slots.tolist()):
        assert torch.equal(cache[slot // block_size, 0, slot % block_size], k[token])
        assert torch.equal(cache[slot // block_size, 1, slot % block_size], v[token])
    assert cache.isnan().sum() == cache.numel() - k.numel() - v.numel()


@pytest.mark.parametrize("num_rows", [0, 1, 3, 40])
@pytest.mark.parametrize("with_bias", [False, True])
def test_linear_gives_the_same_with_packed_weights(num_rows: int, with_bias: bool):
    x = torch.randn(num_rows, 24)[:, ::2]  # with a stride
    weight, bias = torch.randn(7, 12), torch.randn(7) if with_bias else None
    expected = x @ weight.T + (0 if bias is None else bias)
    packed = pack_linear_weight(weight)
    assert packed.is_mkldnn == torch.backends.mkldnn.is_available()
    assert packed.shape == weight.shape
    assert torch.equal(packed.to_dense() if packed.is_mkldnn else packed, weight)
    torch.testing.assert_close(linear(x, weight, bias), expected)
    torch.testing.assert_close(linear(x, packed, bias), expected)


def lacking(*arguments: object) -> torch.Tensor:
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_reorder_linear_weight'")


def wrong(*arguments: object) -> torch.Tensor:
    return torch.zeros(1, 3)


@pytest.mark.parametrize(
    ("name", "broken"), [("_pack", lacking), ("_packed_product", lacking), ("_packed_product", wrong)]
)
def test_nothing_is_packed_where_torch_cannot(monkeypatch: pytest.MonkeyPatch, name: str, broken: object):
    module = sys.modules["vcore.ops.linear"]  # the package's `linear` is the op
    monkeypatch.setattr(module, name, broken)
    module._can_pack.cache_clear()
    weight = torch.randn(4, 4)
    try:
        assert pack_linear_weight(weight) is weight
    finally:
        module._can_pack.cache_clear()


def test_only_float32_on_the_cpu_is_packed():
    for weight in (torch.randn(4, 4).bfloat16(), torch.empty(4, 4, device="meta")):
        assert pack_linear_weight(weight) is weight
