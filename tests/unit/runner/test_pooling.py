"""Vectors of prompts: chunks join, rows do not mix, what is not finite harms its own row, whatever path computes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from vcore.errors import EngineError
from vcore.interfaces.step import NewRow
from vcore.runner import forward_pass
from vcore.runner.pooling import PromptPooling
from vcore.sampling_params import SamplingParams
from vcore.testing import TapeRecorder

Make = Callable[..., Any]
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
PRIME = 1_000_003


def states(prompt: list[int]) -> np.ndarray:
    """What the doubles' model says at each token of a prompt."""
    digests = [0]
    for token in prompt:
        digests.append((digests[-1] * 31 + token + 1) % PRIME)
    return np.array(digests[1:], dtype=np.float64)


def expected(prompt: list[int], mode: str) -> float:
    return float(states(prompt)[-1] if mode == "last" else states(prompt).mean())


@pytest.mark.parametrize("mode", ["last", "mean"])
@pytest.mark.parametrize("chunks", [[10], [4, 6], [1] * 10, [9, 1], [1, 9]])
@pytest.mark.parametrize("keep", [False, True])
def test_chunks_join_beside_a_row_that_samples(
    setup_runner: Make, make_request: Make, mode: str, chunks: list[int], keep: bool
) -> None:
    driver = setup_runner(keep_tokens_on_device=keep).driver
    request, neighbour = make_request(PROMPT, pooling=mode), make_request([1])
    for i, count in enumerate(chunks):
        result = driver.step((neighbour, 1), (request, count))
        assert set(result.vectors) == ({request.row} if i == len(chunks) - 1 else set())
        assert result.rows.tolist() == [neighbour.row]
    vector = result.vectors[request.row]
    assert (vector.dtype, vector.shape) == (np.float32, (1,))
    assert vector[0] == pytest.approx(expected(PROMPT, mode), rel=1e-6)
    alone = make_request([1])
    assert neighbour.output == setup_runner().driver.run(alone, len(chunks))


@pytest.mark.parametrize("mode", ["last", "mean"])
def test_rows_that_pool_alone_need_no_head(setup_runner: Make, make_request: Make, mode: str) -> None:
    setup = setup_runner()
    requests = [make_request(PROMPT[:length], pooling=mode) for length in (1, 4, 9)]
    result = setup.driver.step(*((request, len(request.prompt)) for request in requests))
    for request in requests:
        assert result.vectors[request.row][0] == pytest.approx(expected(request.prompt, mode), rel=1e-6)
    assert setup.model.logits_rows == []
    assert not result.rows.size


@pytest.mark.parametrize("mode", ["last", "mean"])
@pytest.mark.parametrize("keep", [False, True])
def test_a_request_that_leaves_begins_anew(setup_runner: Make, make_request: Make, mode: str, keep: bool) -> None:
    driver = setup_runner(max_num_seqs=1, keep_tokens_on_device=keep).driver
    request, other = make_request(PROMPT, pooling=mode), make_request(PROMPT)
    driver.step((request, 7))
    driver.release(request)
    assert driver.step((other, 10)).vectors == {}
    driver.release(other)
    driver.step((request, 2))
    assert driver.step((request, 8)).vectors[request.row][0] == pytest.approx(expected(PROMPT, mode), rel=1e-6)


@pytest.mark.parametrize("mode", ["last", "mean"])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_ends_its_own_row(
    setup_runner: Make, make_request: Make, monkeypatch: pytest.MonkeyPatch, mode: str, wrong: float
) -> None:
    setup = setup_runner()
    forward = setup.model.forward

    def spoil(*inputs: Any) -> torch.Tensor:
        hidden = forward(*inputs)
        hidden[-1] = wrong
        return hidden

    monkeypatch.setattr(setup.model, "forward", spoil)
    good, bad = make_request(PROMPT, pooling=mode), make_request(PROMPT, pooling=mode)
    result = setup.driver.step((good, 10), (bad, 10))
    assert set(result.vectors) == {good.row}
    assert result.vectors[good.row][0] == pytest.approx(expected(PROMPT, mode), rel=1e-6)
    assert "hidden states hold NaN or infinity" in result.errors[bad.row]


@pytest.mark.parametrize("mode", ["last", "mean"])
def test_steps_in_segments_give_the_same(
    setup_runner: Make, make_request: Make, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Recorded pieces write to addresses that later steps overwrite, and pad with tokens that are nobody's."""
    monkeypatch.setattr(forward_pass, "GraphRecorder", TapeRecorder)
    driver = setup_runner(max_segment_tokens=14, keep_tokens_on_device=True).driver
    first, second = make_request(PROMPT, pooling=mode), make_request(PROMPT[:7], pooling=mode)
    handles = [driver.launch([(first, 6)]), driver.launch([(first, 4), (second, 7)])]
    del handles
    assert driver.collect().vectors == {}
    result = driver.collect()
    for request in (first, second):
        assert result.vectors[request.row][0] == pytest.approx(expected(request.prompt, mode), rel=1e-6)


def new_row(row: int, mode: str | None, num_tokens: int) -> NewRow:
    return NewRow(
        row=row,
        request_id=f"r{row}",
        token_ids=[0] * num_tokens,
        num_prompt_tokens=num_tokens,
        num_computed_tokens=0,
        block_ids=[[1]],
        params=SamplingParams(),
        pooling=mode,  # type: ignore[arg-type]
    )


def test_sums_are_float32_whatever_the_model_computes_in() -> None:
    """In bfloat16 there is no 301."""
    pooling = PromptPooling(2)
    pooling.add(new_row(0, "mean", 602))
    rows, ones = np.array([0]), torch.ones(301, 2, dtype=torch.bfloat16)
    where = np.array([0, 301], dtype=np.int32)
    assert pooling.pool(pooling.spans(rows, np.array([0]), where), ones) is None
    pooled = pooling.pool(pooling.spans(rows, np.array([301]), where), ones)
    assert pooled is not None
    assert pooled.vectors.dtype == torch.float32
    assert pooled.vectors.tolist() == [[1.0, 1.0]]
    assert not len(pooling)


def test_both_kinds_share_a_step() -> None:
    pooling = PromptPooling(None)
    for row, mode in ((2, "mean"), (0, "last"), (1, None)):
        pooling.add(new_row(row, mode, 2))
    where = np.array([0, 2, 4, 6], dtype=np.int32)
    spans = pooling.spans(np.array([0, 1, 2]), np.zeros(3, dtype=np.int64), where)
    pooled = pooling.pool(spans, torch.arange(6, dtype=torch.float32)[:, None])
    assert pooled is not None
    vectors, wrong = pooled.check()
    assert {row: vector.tolist() for row, vector in vectors.items()} == {0: [1.0], 2: [4.5]}
    assert wrong == {}


def test_hidden_states_of_another_width_are_refused() -> None:
    pooling = PromptPooling(3)
    pooling.add(new_row(0, "last", 1))
    spans = pooling.spans(np.array([0]), np.array([0]), np.array([0, 1], dtype=np.int32))
    with pytest.raises(EngineError, match=r"gave hidden states of 2 features.*hidden_size=3"):
        pooling.pool(spans, torch.ones(1, 2))
