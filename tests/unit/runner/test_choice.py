"""Greedy choice and the race: the right distribution, the same sample in any company, no garbage for broken rows."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from vcore.runner import choice
from vcore.runner.choice import greedy, race, race_filtered
from vcore.runner.gumbel import position_keys, request_key, token_offsets

CPU = torch.device("cpu")


def keys_of(num_rows: int, seed: int = 0) -> torch.Tensor:
    keys = np.full(num_rows, request_key(seed, 0), dtype=np.uint64)
    return torch.from_numpy(position_keys(keys, np.arange(num_rows)))


def draw(
    logits: torch.Tensor,
    keys: torch.Tensor,
    temperature: float = 1.0,
    filters: tuple[int, float, float] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One sample a key, all of the one row of logits if there is but one."""
    num_rows, vocab_size = keys.shape[0], logits.shape[1]
    rows = torch.arange(num_rows) if logits.shape[0] == num_rows else torch.zeros(num_rows, dtype=torch.int64)
    common = (logits, rows, torch.full((num_rows,), temperature), keys, token_offsets(vocab_size, CPU))
    if filters is None:
        return race(*common)
    top_k, top_p, min_p = filters
    return race_filtered(
        *common,
        torch.full((num_rows,), top_k),
        torch.full((num_rows,), top_p),
        torch.full((num_rows,), min_p),
    )


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """In standard deviations above what chance gives."""
    expected = probabilities * counts.sum()
    likely = expected > 5
    statistic = float((((counts - expected) ** 2)[likely] / expected[likely]).sum())
    freedom = int(likely.sum()) - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("filters", [None, (12, 1.0, 0.0), (40, 0.8, 0.0), (40, 1.0, 0.1), (25, 0.95, 0.02)])
def test_samples_are_distributed_as_asked(temperature: float, filters: tuple[int, float, float] | None) -> None:
    logits = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 40)).astype(np.float32) * 1.5)
    token_ids, _ = draw(logits, keys_of(20_000, seed=3), temperature, filters)
    scores = logits[0].double().numpy() / temperature
    if filters is not None:
        top_k, top_p, min_p = filters
        scores[scores < np.sort(scores)[-top_k]] = -np.inf
        order = np.argsort(-scores)
        cumulative = np.exp(scores[order] - scores.max()).cumsum()
        cumulative /= cumulative[-1]
        scores[order[int((cumulative < top_p - 1e-12).sum()) + 1 :]] = -np.inf
        if min_p:
            scores[scores < scores.max() + math.log(min_p)] = -np.inf
    probabilities = np.exp(scores - scores.max())
    probabilities /= probabilities.sum()
    counts = np.bincount(token_ids.numpy(), minlength=40)
    assert not counts[probabilities == 0].any()
    assert chi_square(counts, probabilities) < 4


@pytest.mark.parametrize("filters", [None, (3000, 0.9, 0.0), (50, 1.0, 0.0)])
def test_a_sample_depends_on_nothing_else_in_the_batch(
    filters: tuple[int, float, float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.from_numpy(np.random.default_rng(2).standard_normal((9, 3000)).astype(np.float32) * 3)
    keys = keys_of(9)
    together = draw(logits, keys, 0.9, filters)[0]
    alone = torch.cat([draw(logits[i : i + 1], keys[i : i + 1], 0.9, filters)[0] for i in range(9)])
    reverse = draw(logits.flip(0), keys.flip(0), 0.9, filters)[0].flip(0)
    monkeypatch.setitem(choice._CHUNK_ELEMENTS, "cpu", 7000)  # two rows a chunk
    chunked = draw(logits, keys, 0.9, filters)[0]
    assert together.tolist() == alone.tolist() == reverse.tolist() == chunked.tolist()


def test_filters_only_take_tokens_away() -> None:
    """Where the winner of the whole race survives the filters, it wins the filtered one: noise belongs to token ids."""
    logits = torch.from_numpy(np.random.default_rng(3).standard_normal((1, 2500)).astype(np.float32) * 4)
    keys = keys_of(300)
    whole, filtered = draw(logits, keys)[0], draw(logits, keys, filters=(20, 1.0, 0.0))[0]
    survivors = set(logits[0].topk(20).indices.tolist())
    same = [w == f for w, f in zip(whole.tolist(), filtered.tolist(), strict=True) if w in survivors]
    assert len(same) > 100
    assert all(same)
    assert set(filtered.tolist()) <= survivors


def test_dense_and_sparse_races_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an accelerator does (mask, then race over all) and what the CPU does (race the survivors)."""
    logits = torch.from_numpy(np.random.default_rng(4).standard_normal((30, 500)).astype(np.float32) * 2)
    sparse = draw(logits, keys_of(30), 0.8, (40, 0.9, 0.01))

    def dense(scores: np.ndarray, limits: np.ndarray, keys: torch.Tensor, offsets: torch.Tensor):  # type: ignore[no-untyped-def]
        masked = torch.from_numpy(scores).masked_fill(torch.from_numpy(scores < limits[:, None]), -torch.inf)
        return masked.sub_(choice.log_exponential(keys[:, None] + offsets)).max(dim=1)[::-1]

    monkeypatch.setattr(choice, "_race_survivors", dense)
    masked = draw(logits, keys_of(30), 0.8, (40, 0.9, 0.01))
    assert sparse[0].tolist() == masked[0].tolist()
    assert sparse[1].tolist() == masked[1].tolist()


def test_greedy_takes_the_first_of_equals_in_every_dtype() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        logits = torch.tensor([[1, 5, 2, 5], [0, -1, -2, -3]], dtype=dtype)
        token_ids, values = greedy(logits)
        assert token_ids.tolist() == [1, 0]
        assert values.tolist() == [5, 0]


Choose = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@pytest.mark.parametrize(
    "choose",
    [
        greedy,
        lambda logits: draw(logits, keys_of(logits.shape[0])),
        lambda logits: draw(logits, keys_of(logits.shape[0]), filters=(7, 0.9, 0.1)),
    ],
    ids=["greedy", "race", "race_filtered"],
)
def test_broken_rows_are_told_by_their_score_and_harm_no_other(choose: Choose) -> None:
    logits = torch.from_numpy(np.random.default_rng(5).standard_normal((5, 30)).astype(np.float32))
    before = choose(logits.clone())
    logits[1, 17] = torch.nan
    logits[2] = -torch.inf
    logits[3] = -torch.inf
    logits[3, 4] = -2.0
    token_ids, scores = choose(logits)
    assert math.isnan(scores[1])
    assert scores[2] == -math.inf
    assert token_ids[3] == 4
    assert scores[3] > -math.inf
    assert (token_ids[[0, 4]].tolist(), scores[[0, 4]].tolist()) == (
        before[0][[0, 4]].tolist(),
        before[1][[0, 4]].tolist(),
    )
    assert all(0 <= token < 30 for token in token_ids.tolist())


def test_a_logit_raised_to_infinity_wins() -> None:
    logits = torch.zeros(1, 10)
    logits[0, 6] = torch.inf
    for filters in (None, (5, 0.9, 0.1)):
        assert draw(logits, keys_of(1), filters=filters)[0].tolist() == [6]


@pytest.mark.parametrize("filters", [None, (1000, 0.99, 0.0)])
def test_extreme_temperatures_overflow_nothing(filters: tuple[int, float, float] | None) -> None:
    logits = torch.from_numpy(np.random.default_rng(6).standard_normal((1, 1000)).astype(np.float32) * 100)
    cold, scores = draw(logits, keys_of(50), 1e-8, filters)
    assert set(cold.tolist()) == {int(logits.argmax())}
    assert scores.isfinite().all()
    hot, _ = draw(logits, keys_of(50), 100.0, filters)
    assert len(set(hot.tolist())) > 20
