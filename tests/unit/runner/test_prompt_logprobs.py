"""Prompt logprobs: one entry a token but the first, whatever the chunks, and none twice after a preemption."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from vcore.runner import prompt_logprobs

Make = Callable[..., Any]
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]


def check(request: Any, naive_logits: Make) -> None:
    assert [entry.token_ids[0] for entry in request.prompt_logprobs] == request.prompt[1:]
    for i, entry in enumerate(request.prompt_logprobs):
        logits = naive_logits(request.prompt[: i + 1])
        expected = torch.from_numpy(logits).log_softmax(dim=0)
        assert entry.logprobs == pytest.approx(expected[entry.token_ids].tolist(), abs=1e-5)
        assert entry.token_ids[1:] == np.argsort(-logits, kind="stable")[: len(entry.token_ids) - 1].tolist()
        assert entry.ranks == [1 + int((logits > logits[token]).sum()) for token in entry.token_ids]


@pytest.mark.parametrize("chunks", [[10], [4, 6], [1] * 10, [9, 1], [1, 9]])
@pytest.mark.parametrize("num_top", [0, 3])
def test_chunks_join_without_a_seam(
    setup_runner: Make, make_request: Make, naive_logits: Make, chunks: list[int], num_top: int
) -> None:
    driver, request = setup_runner().driver, make_request(PROMPT, prompt_logprobs=num_top)
    neighbour = make_request([1])
    for i, count in enumerate(chunks):
        result = driver.step((neighbour, 1), (request, count))
        computed = sum(chunks[: i + 1])
        assert len(request.prompt_logprobs) == min(computed, len(PROMPT) - 1)
        assert set(result.prompt_logprobs) <= {request.row}
    check(request, naive_logits)
    assert all(len(entry.token_ids) == 1 + num_top for entry in request.prompt_logprobs)
    assert not driver.step((request, 1)).prompt_logprobs


@pytest.mark.parametrize("before", [1, 4, 9])
def test_a_preemption_inside_the_prompt_begins_again(
    setup_runner: Make, make_request: Make, naive_logits: Make, before: int
) -> None:
    driver, request = setup_runner().driver, make_request(PROMPT, prompt_logprobs=1)
    driver.step((request, before))
    driver.release(request)
    request.prompt_logprobs = []
    driver.step((request, 2))
    driver.step((request, 8))
    check(request, naive_logits)


def test_a_preemption_after_the_prompt_gives_nothing_again(setup_runner: Make, make_request: Make) -> None:
    setup = setup_runner()
    driver, request = setup.driver, make_request(PROMPT, prompt_logprobs=1)
    driver.run(request, 2)
    driver.release(request)
    given, request.prompt_logprobs = request.prompt_logprobs, []
    driver.step((request, request.num_tokens))
    assert len(given) == 9
    assert request.prompt_logprobs == []
    assert setup.model.logits_rows[-1] == 1


def test_the_head_is_applied_to_a_bounded_number_of_positions(
    setup_runner: Make, make_request: Make, naive_logits: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_logprobs, "_MAX_LOGITS", 40 * 4)
    setup = setup_runner()
    request = make_request(PROMPT, prompt_logprobs=2)
    setup.driver.step((request, 10))
    assert setup.model.logits_rows == [4, 4, 1, 1]  # nine entries, then the sample
    check(request, naive_logits)


def test_a_prompt_of_one_token_has_no_entries(setup_runner: Make, make_request: Make) -> None:
    result = setup_runner().driver.step((make_request([3], prompt_logprobs=1), 1))
    assert result.prompt_logprobs == {}
    assert result.rows.size == 1


@pytest.mark.parametrize("keep", [False, True])
def test_a_request_that_leaves_is_forgotten(setup_runner: Make, make_request: Make, keep: bool) -> None:
    driver = setup_runner(max_num_seqs=1, keep_tokens_on_device=keep).driver
    request, other = make_request(PROMPT, prompt_logprobs=1), make_request(PROMPT)
    driver.step((request, 3))
    driver.release(request)
    assert driver.step((other, 10)).prompt_logprobs == {}
