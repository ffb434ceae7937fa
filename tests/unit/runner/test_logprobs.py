"""Log probabilities against log_softmax; ranks against a count."""

from __future__ import annotations

import pytest
import torch

from vcore.runner.logprobs import gather_logprobs


@pytest.mark.parametrize("num_top", [0, 1, 5, 30, 99])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_log_softmax_and_ranks_are_exact(num_top: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(6, 30, generator=generator) * 3).to(dtype)
    token_ids = torch.randint(0, 30, (6,), generator=generator)
    lists = gather_logprobs(logits, token_ids, num_top).to_lists([num_top, 0, *[num_top] * 4])
    expected = logits.double().log_softmax(dim=1)
    for i, entry in enumerate(lists):
        wanted = 0 if i == 1 else min(num_top, 30)
        assert len(entry.token_ids) == len(entry.logprobs) == len(entry.ranks) == 1 + wanted
        assert entry.token_ids[0] == token_ids[i]
        assert entry.logprobs == pytest.approx(expected[i, entry.token_ids].tolist(), abs=1e-5)
        assert entry.ranks == [1 + int((logits[i] > logits[i, token]).sum()) for token in entry.token_ids]
        likely = expected[i].topk(wanted).values.tolist()
        assert entry.logprobs[1:] == pytest.approx(likely, abs=1e-5)


def test_equal_logits_share_a_rank() -> None:
    logits = torch.tensor([[2.0, 3.0, 3.0, 1.0, 2.0]])
    (entry,) = gather_logprobs(logits, torch.tensor([4]), 5).to_lists([5])
    ranks = dict(zip(entry.token_ids[1:], entry.ranks[1:], strict=True))
    assert ranks == {1: 1, 2: 1, 0: 3, 4: 3, 3: 5}
    assert entry.ranks[0] == 3


def test_a_masked_token_has_probability_zero() -> None:
    (entry,) = gather_logprobs(torch.tensor([[0.0, -torch.inf]]), torch.tensor([1]), 2).to_lists([2])
    assert entry.logprobs == [-torch.inf, 0.0, -torch.inf]
    assert entry.ranks == [2, 1, 2]
