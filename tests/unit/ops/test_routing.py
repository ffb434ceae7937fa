"""The references of the ops that route tokens to experts."""

from __future__ import annotations

import pytest
import torch

from vcore.ops import softmax_top_k, uniform_top_k


def test_softmax_top_k_gives_the_highest_probabilities_first():
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0]], dtype=torch.bfloat16)
    weights, expert_ids = softmax_top_k(logits, 3)
    assert expert_ids.tolist() == [[1, 3, 2]]
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, logits.float().softmax(-1)[:, [1, 3, 2]])


def test_weights_are_divided_by_their_sum_and_then_scaled():
    weights, _ = softmax_top_k(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), 2, True, 2.5)
    torch.testing.assert_close(weights.sum(-1), torch.full((3,), 2.5))


def test_of_equal_scores_the_lower_expert_is_chosen():
    _, expert_ids = softmax_top_k(torch.tensor([[0.0, 1.0, -0.0, 1.0, 0.0]] * 40), 4)
    assert expert_ids.tolist() == [[1, 3, 0, 2]] * 40


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_uniform_top_k_is_a_function_of_a_tokens_own_logits(dtype: torch.dtype):
    logits = torch.randn(50, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    weights, expert_ids = uniform_top_k(logits, 3)
    assert torch.equal(weights, torch.full((50, 3), 1 / 3))
    assert all(len(set(row)) == 3 for row in expert_ids.tolist())
    assert torch.equal(uniform_top_k(logits[7:9], 3)[1], expert_ids[7:9])
    assert len({tuple(row) for row in expert_ids.tolist()}) > 40
