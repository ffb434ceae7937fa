"""The kernels that choose tokens against `vcore.runner.choice` as torch computes it. They need a CUDA device."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vcore.ops.triton import race as kernels
from vcore.runner.choice import greedy, race
from vcore.runner.gumbel import position_keys, request_key, token_offsets

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")
VOCABULARIES = [1, 40, 1024, 4097, 128_256, 151_936]
NAN, INF = math.nan, math.inf


def logits(rows: int, vocab_size: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator(device=CUDA).manual_seed(seed)
    return (4 * torch.randn(rows, vocab_size, generator=generator, device=CUDA)).to(dtype)


def keys(count: int, position: int = 5) -> torch.Tensor:
    requests = np.array([request_key(seed, 0) for seed in range(count)], dtype=np.uint64)
    return torch.from_numpy(position_keys(requests, np.full(count, position))).to(CUDA)


def same_race(given: torch.Tensor, rows: torch.Tensor, temperature: torch.Tensor) -> None:
    arguments = (given, rows, temperature, keys(rows.shape[0]), token_offsets(given.shape[1], CUDA))
    ids, scores = kernels.race(*arguments)
    expected_ids, expected_scores = race.reference(*arguments)
    assert torch.equal(ids, expected_ids)
    torch.testing.assert_close(scores, expected_scores, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("vocab_size", VOCABULARIES)
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_the_largest_logit(rows: int, vocab_size: int, dtype: torch.dtype) -> None:
    given = logits(rows, vocab_size, dtype)
    ids, scores = kernels.greedy(given)
    assert ids.dtype == torch.int64
    assert torch.equal(scores, given.amax(1))
    # Half precision has ties: of equal ones, the lowest id.
    first = (given == given.amax(1, keepdim=True)).int().argmax(1)
    assert torch.equal(ids, first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("vocab_size", VOCABULARIES)
@pytest.mark.parametrize("count", [1, 5, 50])
def test_the_race_is_that_of_the_reference(count: int, vocab_size: int, dtype: torch.dtype) -> None:
    given = logits(count + 2, vocab_size, dtype)
    rows = torch.randperm(count + 2, generator=torch.Generator().manual_seed(1))[:count].to(CUDA)
    temperature = torch.linspace(0.1, 3.0, count, device=CUDA)
    same_race(given, rows, temperature)


def test_rows_that_are_hard_to_compute() -> None:
    given = logits(7, 5000)
    given[0] = -INF
    given[1, 4000:4003] = INF
    given[2, 100] = NAN
    given[3, :4990] = -INF
    given[4] *= 1e30
    given[5] = 0.0
    given[6, 1:] = -INF
    temperature = torch.tensor([1.0, 0.5, 1.0, 2.0, 1e-30, 1e30, 0.7], device=CUDA)
    offsets = token_offsets(5000, CUDA)
    rows = torch.arange(7, device=CUDA)
    ids, scores = kernels.race(given, rows, temperature, keys(7), offsets)
    expected_ids, expected_scores = race.reference(given, rows, temperature, keys(7), offsets)
    torch.testing.assert_close(scores, expected_scores, rtol=1e-5, atol=1e-5, equal_nan=True)
    meant = ~(scores.isnan() | scores.isinf() & (scores < 0))
    assert meant.tolist() == [False, True, False, True, True, True, True]
    assert torch.equal(ids[meant], expected_ids[meant])
    assert ((ids >= 0) & (ids < 5000)).all()  # whatever it means, it may be looked up


def test_greedy_rows_that_mean_nothing_still_name_a_token() -> None:
    given = logits(3, 3000)
    given[0], given[1, 2500] = -INF, NAN
    ids, scores = kernels.greedy(given)
    assert [scores[0].item(), math.isnan(scores[1].item())] == [-INF, True]
    assert ((ids >= 0) & (ids < 3000)).all()
    assert ids[2] == given[2].argmax()


def test_logits_may_be_a_view() -> None:
    wide = logits(4, 2000)
    given = wide[:, :1500]
    assert torch.equal(kernels.greedy(given)[0], given.argmax(1))
    same_race(given, torch.arange(4, device=CUDA), torch.ones(4, device=CUDA))
    turned = logits(1500, 4).T
    assert torch.equal(kernels.greedy(turned)[0], turned.argmax(1))


def test_no_rows_at_all() -> None:
    given = logits(2, 50)
    nothing = torch.empty(0, dtype=torch.int64, device=CUDA)
    ids, scores = kernels.race(given, nothing, torch.empty(0, device=CUDA), nothing, token_offsets(50, CUDA))
    assert ids.shape == scores.shape == (0,)
    assert kernels.greedy(given[:0])[0].shape == (0,)


def test_the_distribution_is_that_of_the_softmax() -> None:
    given = torch.tensor([[0.0, 1.0, 2.0, -1.0]], device=CUDA).expand(20_000, 4).contiguous()
    requests = np.array([request_key(seed, 0) for seed in range(20_000)], dtype=np.uint64)
    drawn = torch.from_numpy(position_keys(requests, np.zeros(20_000, dtype=np.int64))).to(CUDA)
    temperature = torch.full((20_000,), 0.8, device=CUDA)
    rows = torch.arange(20_000, device=CUDA)
    ids, _ = kernels.race(given, rows, temperature, drawn, token_offsets(4, CUDA))
    shares = torch.bincount(ids, minlength=4).double() / 20_000
    expected = (given[0] / 0.8).softmax(0).double()
    assert (shares - expected).abs().max() < 4 * (0.25 / 20_000) ** 0.5


def test_the_dispatched_ops_are_these_kernels() -> None:
    given = logits(2, 300)
    assert greedy._kernel_for("cuda") is kernels.greedy
    assert race._kernel_for("cuda") is kernels.race
    assert torch.equal(greedy(given)[0], given.argmax(1))
