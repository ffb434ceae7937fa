"""Merging attention over a split context, against attention over the whole."""

from __future__ import annotations

import pytest
import torch

from vcore.ops import merge_attention_

SHAPE = (5, 3, 8)
"""Queries, heads, features."""


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scores = torch.einsum("qhd,khd->qhk", q, k)
    return torch.einsum("qhk,khd->qhd", scores.softmax(-1), v), scores.logsumexp(-1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("cuts", [[4], [1, 2], [3, 6, 9]])
def test_parts_make_the_whole(cuts: list[int]):
    q, k, v = torch.randn(SHAPE), torch.randn(11, 3, 8), torch.randn(11, 3, 8)
    expected, expected_lse = _attend(q, k, v)
    parts = [_attend(q, *pair) for pair in zip(torch.tensor_split(k, cuts), torch.tensor_split(v, cuts), strict=True)]
    out, lse = parts[0]
    for other, other_lse in parts[1:]:
        before = other.clone(), other_lse.clone()
        merge_attention_(out, lse, other, other_lse)
        assert torch.equal(other, before[0])
        assert torch.equal(other_lse, before[1])
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(lse, expected_lse)


def test_a_part_without_keys_counts_for_nothing():
    out, lse = torch.randn(SHAPE), torch.randn(SHAPE[:2])
    empty, minus_infinity = torch.zeros(SHAPE), torch.full(SHAPE[:2], float("-inf"))
    for first, second in (((out, lse), (empty, minus_infinity)), ((empty, minus_infinity), (out, lse))):
        total, total_lse = (tensor.clone() for tensor in first)
        merge_attention_(total, total_lse, *second)
        torch.testing.assert_close(total, out)
        torch.testing.assert_close(total_lse, lse)


def test_two_parts_without_keys_give_zero():
    out, lse = torch.randn(SHAPE), torch.full(SHAPE[:2], float("-inf"))
    merge_attention_(out, lse, torch.randn(SHAPE), lse.clone())
    assert not out.any()
    assert (lse == float("-inf")).all()


def test_large_scores_do_not_overflow():
    out, other = torch.zeros(SHAPE), torch.ones(SHAPE)
    lse, other_lse = torch.full(SHAPE[:2], 1000.0), torch.full(SHAPE[:2], 1001.0)
    merge_attention_(out, lse, other, other_lse)
    torch.testing.assert_close(out, torch.full(SHAPE, 1 / (1 + torch.e**-1)))
    torch.testing.assert_close(lse, torch.full(SHAPE[:2], 1001 + torch.log1p(torch.tensor(torch.e**-1)).item()))


def test_halves_are_summed_in_float32():
    out, other = torch.full(SHAPE, 1.0).bfloat16(), torch.full(SHAPE, 1.0).bfloat16()
    lse, other_lse = torch.full(SHAPE[:2], 0.3), torch.full(SHAPE[:2], 0.1)
    merge_attention_(out, lse, other, other_lse)
    assert torch.equal(out, torch.ones_like(out))  # shares of bfloat16 would not sum to one


def test_views_are_written_in_place():
    out, lse = torch.zeros(9, 3, 8), torch.zeros(9, 3)
    merge_attention_(out[2:7], lse[2:7], torch.ones(SHAPE), torch.zeros(SHAPE[:2]))
    assert (out[2:7] == 0.5).all()
    assert not out[:2].any()
    assert not out[7:].any()
