"""Norms against their formula, whole and split over ranks, and where a sublayer has them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from vcore.errors import ConfigError
from vcore.interfaces.model import BuildContext
from vcore.layers import HeadsRMSNorm, LayerNorm, NormStyle, ResidualBlock, RMSNorm, WeightMap, load_weights
from vcore.testing import MemoryCheckpoint, ThreadCollective

EPS = 1e-3


def _formula(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * (x.square().mean(-1, keepdim=True) + EPS).rsqrt() * weight


@pytest.mark.parametrize("unit_offset", [False, True])
def test_a_norm_follows_its_formula(build_context: Callable[..., BuildContext], unit_offset: bool):
    norm, weight = RMSNorm(build_context(), 6, EPS, unit_offset=unit_offset), torch.randn(6)
    load_weights(norm, MemoryCheckpoint({"weight": weight}), WeightMap())
    x, residual = torch.randn(3, 6), torch.randn(3, 6)
    factor = 1 + weight if unit_offset else weight
    torch.testing.assert_close(norm.normalize(x), _formula(x, factor))
    normed, stream = norm(x, residual)
    torch.testing.assert_close(stream, x + residual)
    torch.testing.assert_close(normed, _formula(x + residual, factor))


def test_one_plus_a_small_weight_is_not_rounded_away(build_context: Callable[..., BuildContext]):
    """In bfloat16, 1 + 0.001 is 1."""
    norm = RMSNorm(build_context(dtype=torch.bfloat16), 4, EPS, unit_offset=True)
    load_weights(norm, MemoryCheckpoint({"weight": torch.full((4,), 0.001)}), WeightMap())
    assert norm.weight.dtype == torch.float32
    assert norm.normalize(torch.randn(2, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    torch.testing.assert_close(norm.weight, torch.full((4,), 1.001))


@pytest.mark.parametrize(("num_heads", "tp_size"), [(4, 1), (4, 2), (4, 4), (2, 4), (1, 3)])
def test_heads_are_normalised_together_over_all_ranks(
    build_context: Callable[..., BuildContext], num_heads: int, tp_size: int
):
    """With more ranks than heads, copies of a head count once."""
    heads, weight = torch.randn(5, num_heads, 6), torch.randn(num_heads * 6)
    expected = _formula(heads.flatten(1), weight).view(heads.shape)
    share, copies = max(1, num_heads // tp_size), max(1, tp_size // num_heads)

    def run_rank(rank: int, collective: ThreadCollective) -> None:
        norm = HeadsRMSNorm(build_context(tp_rank=rank, tp_size=tp_size, collective=collective), num_heads, 6, EPS)
        load_weights(norm, MemoryCheckpoint({"weight": weight}), WeightMap())
        own = slice(rank // copies * share, rank // copies * share + share)
        torch.testing.assert_close(norm.normalize(heads[:, own]), expected[:, own])

    ThreadCollective.run(tp_size, run_rank)


def test_split_heads_need_a_collective(build_context: Callable[..., BuildContext]):
    with pytest.raises(ConfigError, match="no collective"):
        HeadsRMSNorm(build_context(tp_size=2), 2, 6, EPS)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
def test_a_block_has_the_norms_of_its_style(
    build_context: Callable[..., BuildContext], before: bool, after: bool, with_residual: bool
):
    block = ResidualBlock(build_context(), 6, NormStyle(eps=EPS, before=before, after=after))
    weights = {name: torch.randn(6) for name, _ in block.named_parameters()}
    assert set(weights) == {name for name, there in (("norm.weight", before), ("post_norm.weight", after)) if there}
    load_weights(block, MemoryCheckpoint(weights), WeightMap())
    x, residual = torch.randn(3, 6), torch.randn(3, 6) if with_residual else None
    stream = x if residual is None else x + residual
    entered, kept = block.enter(x, residual)
    torch.testing.assert_close(kept, stream)
    torch.testing.assert_close(entered, _formula(stream, weights["norm.weight"]) if before else stream)
    left = block.leave(x)
    torch.testing.assert_close(left, _formula(x, weights["post_norm.weight"]) if after else x)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("unit_offset", [False, True])
def test_a_layer_norm_follows_its_formula(build_context: Callable[..., BuildContext], bias: bool, unit_offset: bool):
    norm = NormStyle(eps=EPS, kind="layer", bias=bias, unit_offset=unit_offset).build(build_context(), 6)
    assert isinstance(norm, LayerNorm)
    weights = {name: torch.randn(6) for name, _ in norm.named_parameters()}
    assert set(weights) == ({"weight", "bias"} if bias else {"weight"})
    load_weights(norm, MemoryCheckpoint(weights), WeightMap())
    x, residual = torch.randn(3, 6), torch.randn(3, 6)

    def formula(x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred * (centred.square().mean(-1, keepdim=True) + EPS).rsqrt()
        return scaled * (weights["weight"] + (1 if unit_offset else 0)) + weights.get("bias", 0)

    torch.testing.assert_close(norm.normalize(x), formula(x))
    normed, stream = norm(x, residual)
    torch.testing.assert_close(stream, x + residual)
    torch.testing.assert_close(normed, formula(x + residual))
    normed, stream = norm(x)
    torch.testing.assert_close((normed, stream), (formula(x), x))


def test_a_layer_norm_of_one_plus_its_weight_keeps_the_sum_in_float32(build_context: Callable[..., BuildContext]):
    norm = LayerNorm(build_context(dtype=torch.bfloat16), 4, EPS, unit_offset=True)
    load_weights(norm, MemoryCheckpoint({"weight": torch.full((4,), 0.001), "bias": torch.zeros(4)}), WeightMap())
    torch.testing.assert_close(norm.weight, torch.full((4,), 1.001))
    assert norm.normalize(torch.randn(2, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
