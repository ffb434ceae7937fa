"""Thresholds of top-k, top-p and min-p, on the host and by torch alone, against a sort of each row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vcore.runner.filters import thresholds, thresholds_on_host


def kept_naively(scores: np.ndarray, top_k: int, top_p: float, min_p: float) -> set[int]:
    """Which tokens the filters keep, one after another, in float64. Scores are all different."""
    order = sorted(range(scores.size), key=lambda i: -scores[i])[:top_k]
    probabilities = np.exp(scores[order].astype(np.float64))
    probabilities /= probabilities.sum()
    if top_p < 1:
        order = order[: int(np.searchsorted(probabilities.cumsum(), np.float32(top_p))) + 1]
    largest = float(scores.max())
    return {i for i in order if min_p == 0 or np.exp(float(scores[i]) - largest) >= np.float32(min_p) * (1 - 1e-7)}


def run(scores: np.ndarray, top_k: list[int], top_p: list[float], min_p: list[float], how: str) -> list[set[int]]:
    arguments = [np.array(top_k, dtype=np.int64), np.array(top_p, dtype=np.float32), np.array(min_p, dtype=np.float32)]
    if how == "host":
        limits = thresholds_on_host(scores, *arguments)
    else:
        limits = thresholds(torch.from_numpy(scores), *map(torch.from_numpy, arguments)).numpy()
    return [set(np.flatnonzero(row >= limit).tolist()) for row, limit in zip(scores, limits, strict=True)]


@pytest.mark.parametrize("how", ["host", "torch"])
@pytest.mark.parametrize("vocab_size", [7, 300, 5000])
@pytest.mark.parametrize("spread", [0.05, 1.0, 5.0])
def test_kept_tokens_are_those_of_a_sort(vocab_size: int, spread: float, how: str) -> None:
    generator = np.random.default_rng(vocab_size)
    cases = [
        (k, p, m)
        for k in (1, 3, vocab_size // 3, vocab_size - 1, vocab_size)
        for p in (1e-6, 0.3, 0.9, 0.999, 1.0)
        for m in (0.0, 0.02, 1.0)
    ]
    scores = (generator.standard_normal((len(cases), vocab_size)) * spread).astype(np.float32)
    scores -= scores.max(axis=1, keepdims=True)
    kept = run(scores, [c[0] for c in cases], [c[1] for c in cases], [c[2] for c in cases], how)
    for row, case, found in zip(scores, cases, kept, strict=True):
        assert found == kept_naively(row, *case), case


@pytest.mark.parametrize("how", ["host", "torch"])
def test_equal_scores_are_kept_or_dropped_together(how: str) -> None:
    scores = np.array([[0.0, -1.0, -1.0, -1.0, -2.0]], dtype=np.float32)
    assert run(scores, [2], [1.0], [0.0], how) == [{0, 1, 2, 3}]
    assert run(scores, [1], [1.0], [0.0], how) == [{0}]


@pytest.mark.parametrize("how", ["host", "torch"])
def test_masked_tokens_weigh_nothing_and_nan_is_not_hidden(how: str) -> None:
    masked = np.full((1, 3000), -np.inf, dtype=np.float32)
    masked[0, [5, 2999]] = [0.0, -0.5]
    assert {5, 2999} <= run(masked, [50], [0.99], [0.0], how)[0]
    assert run(masked, [3000], [0.5], [0.0], how) == [{5}]
    assert run(np.full((1, 3000), np.nan, dtype=np.float32), [3000], [0.5], [0.1], how) == [set()]


def test_a_row_that_needs_a_whole_sort_does_not_change_its_neighbours() -> None:
    generator = np.random.default_rng(0)
    flat = generator.standard_normal(6000).astype(np.float32) * 0.01
    steep = generator.standard_normal(6000).astype(np.float32) * 8
    scores = np.stack([flat - flat.max(), steep - steep.max(), flat - flat.max()])
    both = run(scores, [6000, 6000, 4000], [0.9, 0.9, 1.0], [0.0] * 3, "host")
    for row, k, p, expected in zip(scores, [6000, 6000, 4000], [0.9, 0.9, 1.0], both, strict=True):
        assert run(row[None], [k], [p], [0.0], "host") == [expected]
    assert len(both[0]) > 5000
    assert len(both[2]) == 4000
