"""The kernels that choose tokens against `vcore.runner.choice` as torch computes it.

On a CUDA device: ``pytest -m gpu tests/gpu/test_triton_race.py``. On a CPU, with Triton installed, the same command
under ``TRITON_INTERPRET=1`` runs the kernels through Triton's interpreter on smaller cases.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import triton.language as tl
from numpy.typing import NDArray
from triton.runtime.interpreter import TensorHandle

from vcore.ops.triton import race as kernels
from vcore.runner.choice import choose_and_record, greedy, race
from vcore.runner.gumbel import position_keys, request_key, token_offsets

pytestmark = [pytest.mark.gpu, pytest.mark.interpreted]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
VOCABULARIES = [1, 40, 1024, 4097] + ([] if INTERPRETED else [128_256, 151_936])
MANY = 17 if INTERPRETED else 50
"""Rows, so many that chunks are large."""
DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])
NAN, INF = math.nan, math.inf


@pytest.fixture(autouse=True)
def _functions_of_libdevice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter has none: NumPy's stand in."""

    def elementwise(function: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Callable[[tl.tensor], tl.tensor]:
        return lambda x: tl.tensor(TensorHandle(function(x.handle.data), x.handle.dtype), x.type)

    if INTERPRETED:
        functions = SimpleNamespace(log=elementwise(np.log), log1p=elementwise(np.log1p))
        monkeypatch.setattr(kernels, "libdevice", functions)


def logits(rows: int, vocab_size: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator(device=DEVICE).manual_seed(seed)
    return (4 * torch.randn(rows, vocab_size, generator=generator, device=DEVICE)).to(dtype)


def keys(count: int, position: int = 5) -> torch.Tensor:
    requests = np.array([request_key(seed, 0) for seed in range(count)], dtype=np.uint64)
    return torch.from_numpy(position_keys(requests, np.full(count, position))).to(DEVICE)


def same_race(given: torch.Tensor, rows: torch.Tensor, temperature: torch.Tensor) -> None:
    arguments = (given, rows, temperature, keys(rows.shape[0]), token_offsets(given.shape[1], DEVICE))
    ids, scores = kernels.race(*arguments)
    expected_ids, expected_scores = race.reference(*arguments)
    assert torch.equal(ids, expected_ids)
    torch.testing.assert_close(scores, expected_scores, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocab_size", VOCABULARIES)
@pytest.mark.parametrize("rows", [1, 3, MANY])
def test_the_largest_logit(rows: int, vocab_size: int, dtype: torch.dtype) -> None:
    given = logits(rows, vocab_size, dtype)
    ids, scores = kernels.greedy(given)
    assert ids.dtype == torch.int64
    assert torch.equal(scores, given.amax(1))
    # Half precision has ties: of equal ones, the lowest id.
    first = (given == given.amax(1, keepdim=True)).int().argmax(1)
    assert torch.equal(ids, first)


@pytest.mark.parametrize("dtype", [DTYPES[0], DTYPES[-1]], ids=str)
@pytest.mark.parametrize("vocab_size", VOCABULARIES)
@pytest.mark.parametrize("count", [1, 5, MANY])
def test_the_race_is_that_of_the_reference(count: int, vocab_size: int, dtype: torch.dtype) -> None:
    given = logits(count + 2, vocab_size, dtype)
    rows = torch.randperm(count + 2, generator=torch.Generator().manual_seed(1))[:count].to(DEVICE)
    temperature = torch.linspace(0.1, 3.0, count, device=DEVICE)
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
    temperature = torch.tensor([1.0, 0.5, 1.0, 2.0, 1e-30, 1e30, 0.7], device=DEVICE)
    offsets = token_offsets(5000, DEVICE)
    rows = torch.arange(7, device=DEVICE)
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
    same_race(given, torch.arange(4, device=DEVICE), torch.ones(4, device=DEVICE))
    turned = logits(1500, 4).T
    assert torch.equal(kernels.greedy(turned)[0], turned.argmax(1))


def test_no_rows_at_all() -> None:
    given = logits(2, 50)
    nothing = torch.empty(0, dtype=torch.int64, device=DEVICE)
    ids, scores = kernels.race(given, nothing, torch.empty(0, device=DEVICE), nothing, token_offsets(50, DEVICE))
    assert ids.shape == scores.shape == (0,)
    assert kernels.greedy(given[:0])[0].shape == (0,)


@pytest.mark.skipif(INTERPRETED, reason="takes the interpreter minutes")
def test_the_distribution_is_that_of_the_softmax() -> None:
    given = torch.tensor([[0.0, 1.0, 2.0, -1.0]], device=DEVICE).expand(20_000, 4).contiguous()
    requests = np.array([request_key(seed, 0) for seed in range(20_000)], dtype=np.uint64)
    drawn = torch.from_numpy(position_keys(requests, np.zeros(20_000, dtype=np.int64))).to(DEVICE)
    temperature = torch.full((20_000,), 0.8, device=DEVICE)
    rows = torch.arange(20_000, device=DEVICE)
    ids, _ = kernels.race(given, rows, temperature, drawn, token_offsets(4, DEVICE))
    shares = torch.bincount(ids, minlength=4).double() / 20_000
    expected = (given[0] / 0.8).softmax(0).double()
    assert (shares - expected).abs().max() < 4 * (0.25 / 20_000) ** 0.5


@pytest.mark.parametrize("vocab_size", [40, *VOCABULARIES[3:]])
def test_greedy_and_random_rows_of_a_batch_are_chosen_and_recorded(vocab_size: int) -> None:
    given = logits(6, vocab_size)
    temperature = torch.tensor([0.0, 0.7, 1.5, 0.0, 1e-8, 2.0], device=DEVICE)
    rows = torch.tensor([5, 0, 2, -1, 1, -1], device=DEVICE)
    results = []
    for choose in (kernels.choose_and_record, choose_and_record.reference):
        last_token_ids = torch.full((6,), -7, device=DEVICE)
        token_ids, scores = torch.empty(6, dtype=torch.int64, device=DEVICE), torch.empty(6, device=DEVICE)
        choose(given, temperature, keys(6), rows, last_token_ids, token_ids, scores)
        results.append((token_ids, scores, last_token_ids))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert results[0][2].tolist()[3:5] == [-7, -7]


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
def test_few_kernels_serve_any_number_of_rows_and_any_place() -> None:
    def compiled() -> int:
        return sum(len(kernel.device_caches[0][0]) for kernel in (kernels._chunk_kernel, kernels._merge_kernel))

    before = compiled()
    for count in (*range(1, 20), 63, 64, 65, 130):
        given = logits(count, 2011)  # no multiple of anything
        numbers = torch.zeros(2, count + 1, device=DEVICE)
        last, longs = torch.zeros(200, dtype=torch.int64, device=DEVICE), keys(3 * count + 1)
        temperature, scores = numbers[0, 1:], numbers[1, 1:]
        temperature.fill_(0.5)
        drawn, rows, token_ids = longs[:count], longs[count : 2 * count], longs[2 * count : 3 * count]
        rows.copy_(torch.arange(count))
        kernels.greedy(given)
        kernels.race(given, rows, temperature, drawn, token_offsets(2011, DEVICE))
        kernels.choose_and_record(given, temperature, drawn, rows, last, token_ids, scores)
        assert torch.equal(last[:count], token_ids)
    assert compiled() - before <= 2 * 2 * 3  # both kernels, of few rows and of many, of three kinds of choice


def test_the_dispatched_ops_are_these_kernels() -> None:
    assert greedy._kernel_for("cuda") is kernels.greedy
    assert race._kernel_for("cuda") is kernels.race
    assert choose_and_record._kernel_for("cuda") is kernels.choose_and_record
