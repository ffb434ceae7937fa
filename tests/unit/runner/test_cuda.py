"""The runner on CUDA: the CPU's tokens at every depth, no hidden wait in a step, and staging that overtakes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from vcore.runner.gumbel import log_exponential, token_offsets
from vcore.runner.staging import PackedStaging

pytestmark = pytest.mark.gpu

Make = Callable[..., Any]
CUDA = torch.device("cuda")
PARAMS: list[dict[str, Any]] = [
    {},
    {"logprobs": 2},
    {"temperature": 0.9, "seed": 5},
    {"temperature": 1.2, "top_p": 0.8, "min_p": 0.01, "seed": 6, "logprobs": 3},
    {"temperature": 1.0, "top_k": 6, "sample_index": 3, "logit_bias": {3: 2.0}},
    {"presence_penalty": 1.0, "frequency_penalty": 0.5, "repetition_penalty": 1.3},
    {"min_tokens": 6, "eos": (1, 2, 3, 4, 5), "allowed_token_ids": tuple(range(30))},
    {"bad_words": tuple((a, b) for a in range(0, 40, 2) for b in range(0, 40, 3))},
]


def run_all(driver: Any, make_request: Make, depth: int) -> list[Any]:
    """Every request to nine tokens, `depth` steps in flight."""
    running = [
        make_request(list(range(i, i + 4 + i)), f"r{i}", prompt_logprobs=i % 3, **dict(fields))
        for i, fields in enumerate(PARAMS)
    ]
    while any(len(request.output) < 9 for request in running):
        wanted = [(r, r.num_tokens - r.computed) for r in running if len(r.output) + r.launched < 9]
        if wanted:
            driver.launch(wanted)
        if len(driver.in_flight) >= depth or not wanted:
            driver.collect()
    return running


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_tokens_are_those_of_the_cpu_at_every_depth(setup_runner: Make, make_request: Make, depth: int) -> None:
    expected = run_all(setup_runner(num_blocks=200).driver, make_request, 1)
    found = run_all(setup_runner(num_blocks=200, device="cuda").driver, make_request, depth)
    for request, wanted in zip(found, expected, strict=True):
        assert request.output == wanted.output
        for entries, others in (
            (request.logprobs, wanted.logprobs),
            (request.prompt_logprobs, wanted.prompt_logprobs),
        ):
            assert [(e.token_ids, e.ranks) for e in entries] == [(e.token_ids, e.ranks) for e in others]
            for entry, other in zip(entries, others, strict=True):
                assert entry.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_noise_is_that_of_the_cpu() -> None:
    states = token_offsets(100_000, torch.device("cpu"))
    on_cuda = log_exponential(token_offsets(100_000, CUDA)).cpu()
    assert torch.allclose(on_cuda, log_exponential(states), atol=1e-6)


def test_launching_a_step_waits_for_nothing(
    setup_runner: Make, make_request: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = setup_runner(num_blocks=200, device="cuda")
    logits = torch.randn(8, 40, device=CUDA)
    monkeypatch.setattr(setup.model, "forward", lambda ids, positions, attn: torch.zeros(ids.shape[0], 1, device=CUDA))
    monkeypatch.setattr(setup.model, "compute_logits", lambda hidden: logits[: hidden.shape[0]].clone())
    running = [make_request([1, 2, 3], f"r{i}", **dict(fields)) for i, fields in enumerate(PARAMS[:7])]
    setup.driver.step(*((request, 3) for request in running))  # admission may wait
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(4):
            setup.driver.launch([(request, 1) for request in running])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for _ in range(4):
        setup.driver.collect()
    assert all(len(request.output) == 5 for request in running)


def test_a_ring_of_pinned_buffers_is_never_overwritten_too_early() -> None:
    staging = PackedStaging(CUDA, num_bytes=1 << 20)
    results = []
    for step in range(12):
        torch.cuda._sleep(20_000_000)  # the device lags behind
        staging.begin()
        tensor = staging.put(np.full(100_000, step, dtype=np.int64))
        staging.flush()
        results.append(tensor.sum())
    assert [int(result) for result in results] == [100_000 * step for step in range(12)]


def test_the_cache_gets_what_the_largest_step_leaves(setup_runner: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = setup_runner(device="cuda")

    def forward(input_ids: torch.Tensor, positions: torch.Tensor, attn: Any) -> torch.Tensor:
        return torch.empty(1 << 28, device=CUDA)[: input_ids.shape[0], None]  # a gigabyte, for a moment

    monkeypatch.setattr(setup.model, "forward", forward)
    available = setup.runner.cache_bytes_available()
    total = torch.cuda.mem_get_info()[1]
    assert 0 < available < total * 0.5 - (1 << 30)
