"""`ModelRunner` over a model that digests its context: tokens are right however steps are cut, moved and overlapped."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from vcore.errors import CapacityError, EngineError
from vcore.interfaces.logits import LogitsProcessor, ProcessorRow
from vcore.interfaces.step import SchedulerOutput

Make = Callable[..., Any]
PARAMS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.9, "seed": 5},
    {"temperature": 1.2, "top_p": 0.8, "seed": 6, "logprobs": 2},
    {"presence_penalty": 1.0, "frequency_penalty": 0.5, "repetition_penalty": 1.3},
    {"min_tokens": 6, "eos": (1, 2, 3, 4, 5), "logprobs": 0},
    {"bad_words": tuple((a, b) for a in range(0, 40, 2) for b in range(0, 40, 3))},
    {"temperature": 1.0, "top_k": 6, "sample_index": 3, "logit_bias": {3: 2.0}},
]


def requests(make_request: Make) -> list[Any]:
    return [make_request(list(range(i, i + 5 + 2 * i)), f"r{i}", **dict(fields)) for i, fields in enumerate(PARAMS)]


def alone(setup_runner: Make, make_request: Make, num_tokens: int) -> list[Any]:
    """Each request by itself, its prompt in one step: what every other way must give, too."""
    finished = requests(make_request)
    for request in finished:
        setup_runner(block_size=16).driver.run(request, num_tokens)
    return finished


def test_greedy_tokens_are_those_of_the_model(setup_runner: Make, make_request: Make, naive_logits: Make) -> None:
    request = make_request([4, 8, 15])
    output = setup_runner().driver.run(request, 12)
    tokens = [4, 8, 15]
    for token in output:
        assert token == naive_logits(tokens).argmax()
        tokens.append(token)
    assert len(set(output)) > 5


@pytest.mark.parametrize("block_size", [1, 4, 16])
@pytest.mark.parametrize(
    ("seed", "windows"), list(enumerate([(None,), (None,), (None, 5), (None, 1, 6, None), (None, 2, 2, 2)]))
)
def test_tokens_do_not_depend_on_chunks_company_or_preemption(
    setup_runner: Make, make_request: Make, block_size: int, seed: int, windows: tuple[int | None, ...]
) -> None:
    expected = alone(setup_runner, make_request, 10)
    num_blocks = 400 * len(windows)
    driver = setup_runner(block_size=block_size, num_blocks=num_blocks, seed=seed, windows=windows).driver
    generator = random.Random(seed)
    running = requests(make_request)
    unfinished = list(running)
    while unfinished:
        chosen = [request for request in unfinished if generator.random() < 0.7]
        for request in list(chosen):
            if request.row is not None and generator.random() < 0.1:
                driver.release(request)
                chosen.remove(request)
        if chosen:
            driver.step(*((r, generator.randint(1, r.num_tokens - r.computed)) for r in chosen))
        for request in [request for request in unfinished if len(request.output) == 10]:
            unfinished.remove(request)
            driver.release(request)
    for request, wanted in zip(running, expected, strict=True):
        assert request.output == wanted.output, request.request_id
        assert [e.token_ids for e in request.logprobs] == [e.token_ids for e in wanted.logprobs]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_tokens_that_stay_on_the_device_give_the_same_at_every_depth(
    setup_runner: Make, make_request: Make, depth: int
) -> None:
    expected = alone(setup_runner, make_request, 9)
    driver = setup_runner(num_blocks=400, keep_tokens_on_device=True).driver
    running = requests(make_request)
    while any(len(request.output) < 9 for request in running):
        # Some prompts in two chunks, so that steps are mixed; then everything that is known to follow.
        wanted = []
        for i, request in enumerate(running):
            left = request.num_tokens - request.computed
            if len(request.output) + request.launched < 9 and left:
                wanted.append((request, left - left // 2 if i % 2 else left))
        if wanted:
            driver.launch(wanted)
        if len(driver.in_flight) >= depth or not wanted:
            driver.collect()
    assert [request.output for request in running] == [request.output for request in expected]
    assert [len(r.logprobs) for r in running] == [len(r.logprobs) for r in expected]


def test_a_token_in_flight_is_dropped_when_its_row_changes_hands(setup_runner: Make, make_request: Make) -> None:
    setup = setup_runner(max_num_seqs=1, keep_tokens_on_device=True)
    driver, first, second = setup.driver, make_request([1, 2, 3]), make_request([4, 5, 6], temperature=0.8)
    driver.launch([(first, 3)])
    driver.launch([(first, 1)])
    _, handle = driver.in_flight.popleft()
    first.launched = 0
    driver.release(first)
    driver.launch([(second, 3)])
    handle.collect()  # late: the row is the second request's by now
    driver.in_flight.popleft()
    driver.collect()
    assert driver.run(second, 6) == setup_runner().driver.run(make_request([4, 5, 6], temperature=0.8), 6)


def test_steps_that_are_never_collected_are_forgotten(setup_runner: Make, make_request: Make) -> None:
    setup = setup_runner(max_num_seqs=2, keep_tokens_on_device=True)
    driver = setup.driver
    for _ in range(5):
        request = make_request([1, 2])
        driver.launch([(request, 2)])
        driver.in_flight.clear()
        request.launched = 0
        driver.release(request)
    assert driver.run(make_request([1, 2]), 3) == setup_runner().driver.run(make_request([1, 2]), 3)
    assert len(setup.runner._pending) <= 1


class Echo(LogitsProcessor):
    """Forces the token after the last one, so it must see it."""

    needs_host_tokens = True

    def apply(self, logits: torch.Tensor, rows: Sequence[ProcessorRow]) -> torch.Tensor:
        for i, row in enumerate(rows):
            last = [*row.prompt_token_ids, *row.output_token_ids][-1]
            logits[i, (last + 1) % logits.shape[1]] = 1e9
        return logits


def test_a_row_that_reads_its_tokens_waits_for_them(setup_runner: Make, make_request: Make) -> None:
    driver = setup_runner(keep_tokens_on_device=True, make_processor=lambda name: Echo()).driver
    request = make_request([7], logits_processors=("echo",))
    for _ in range(4):
        driver.launch([(request, 1)])
    for _ in range(4):
        driver.collect()
    assert request.output == [8, 9, 10, 11]


def test_chunks_inside_a_prompt_compute_no_logits(setup_runner: Make, make_request: Make) -> None:
    setup = setup_runner()
    prefilling, decoding = make_request(list(range(12))), make_request([5, 6])
    result = setup.driver.step((prefilling, 4))
    assert (result.rows.size, result.token_ids.size, setup.model.logits_rows) == (0, 0, [])
    setup.driver.step((prefilling, 4), (decoding, 2))
    assert setup.model.logits_rows == [1]
    setup.driver.step((prefilling, 4), (decoding, 1))
    assert setup.model.logits_rows == [1, 2]


def test_a_step_without_rows_only_applies_the_difference(setup_runner: Make, make_request: Make) -> None:
    setup = setup_runner(max_num_seqs=1)
    request = make_request([1, 2], temperature=1.0)
    setup.driver.run(request, 2)
    empty = np.empty(0, dtype=np.int32)
    output = SchedulerOutput(
        step_id=9, freed_rows=[request.row], rows=empty, num_tokens=empty, samples=empty.astype(bool)
    )
    result = setup.runner.launch(output).collect()
    assert (result.step_id, result.rows.size) == (9, 0)
    assert setup.runner._sampling.num_flagged == 0


def test_results_name_rows_in_the_order_of_the_step(setup_runner: Make, make_request: Make) -> None:
    driver = setup_runner().driver
    a, b, c = make_request([1, 2, 3]), make_request([4, 5, 6, 7]), make_request([9])
    result = driver.step((a, 3), (b, 2), (c, 1))
    assert result.rows.tolist() == [c.row, a.row]
    assert (result.rows.dtype, result.token_ids.dtype) == (np.int32, np.int64)


def test_nan_logits_fail_their_row_alone(setup_runner: Make, make_request: Make, monkeypatch: Any) -> None:
    setup = setup_runner()
    rows = [make_request([1, 2]), make_request([3, 4], logprobs=1), make_request([5, 6], temperature=0.8, top_p=0.9)]
    fine = make_request([7, 8])
    compute = setup.model.compute_logits

    def poisoned(hidden: torch.Tensor) -> torch.Tensor:
        logits = compute(hidden)
        logits[:3, 11] = torch.nan
        return logits

    monkeypatch.setattr(setup.model, "compute_logits", poisoned)
    result = setup.driver.step(*((request, 2) for request in [*rows, fine]))
    assert set(result.errors) == {request.row for request in rows}
    assert all("NaN" in message for message in result.errors.values())
    assert result.logprobs == {}
    monkeypatch.undo()
    assert fine.output == setup_runner().driver.run(make_request([7, 8]), 1)


def test_a_row_with_nothing_left_to_sample_says_why(setup_runner: Make, make_request: Make) -> None:
    request = make_request([1, 2], allowed_token_ids=(3,), eos=(3,), min_tokens=2)
    result = setup_runner().driver.step((request, 2))
    assert request.error is not None
    assert "together rule out every one" in request.error
    assert result.error_params == {request.row: ""}, "the request is to blame, none of its fields alone"


def test_a_step_that_raises_leaves_the_runner_able_to_go_on(
    setup_runner: Make, make_request: Make, monkeypatch: Any
) -> None:
    setup = setup_runner()
    bad, good = make_request([1, 2, 3], temperature=0.7), make_request([4, 5, 6], temperature=0.7)
    setup.driver.step((good, 3))
    monkeypatch.setattr(setup.model, "forward", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        setup.driver.launch([(bad, 3)])
    monkeypatch.undo()
    bad.launched = 0
    setup.driver.release(bad)
    assert setup.driver.run(good, 5) == setup_runner().driver.run(make_request([4, 5, 6], temperature=0.7), 5)


def test_loading_builds_the_model_and_closes_the_checkpoint(setup_runner: Make) -> None:
    setup = setup_runner()
    (context,) = setup.build_contexts
    assert (context.device, context.dtype, context.max_model_len) == (torch.device("cpu"), torch.float32, 60)
    assert (context.tp_rank, context.tp_size, context.config["vocab_size"]) == (0, 1, 40)
    assert setup.model.weight.item() == 3.0
    assert setup.loader.checkpoint.closed
    assert not setup.model.training
    assert not setup.model.weight.requires_grad
    assert torch.get_default_dtype() == torch.float32


def test_a_failed_build_restores_the_default_dtype(setup_runner: Make, monkeypatch: Any) -> None:
    runner = setup_runner().runner
    monkeypatch.setattr(runner, "_build_model", lambda context: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        runner.load()
    assert torch.get_default_dtype() == torch.float32


def test_cache_sizes_follow_from_the_model(setup_runner: Make) -> None:
    runner = setup_runner(block_size=4, num_blocks=9).runner
    layout = runner.cache_layout()
    assert (layout.bytes_per_block, layout.windows) == (2 * 4 * 4, (None,))
    assert runner._forward.caches is not None
    assert [tuple(cache.shape) for cache in runner._forward.caches] == [(9, 2, 4, 1, 1)]
    assert runner.cache_bytes_available() == 1 << 20  # the limit for CPUs


def test_layers_with_windows_have_groups_and_share_memory(setup_runner: Make) -> None:
    runner = setup_runner(block_size=4, num_blocks=9, windows=(None, 5, None, 5, 5, 5)).runner
    layout = runner.cache_layout()
    assert (layout.windows, layout.group_of_layer) == ((None, 5, 5), (0, 1, 0, 1, 2, 2))
    assert layout.bytes_per_block == 2 * (2 * 4 * 4)
    pointers = [cache.data_ptr() for cache in runner._forward.caches]
    assert pointers[0] == pointers[1] == pointers[4] != pointers[2]
    assert pointers[2] == pointers[3] == pointers[5]


def test_a_cache_that_memory_does_not_hold_is_refused_with_the_numbers(setup_runner: Make) -> None:
    runner = setup_runner(block_size=4).runner
    with pytest.raises(CapacityError, match=r"1000000000000 blocks of 4 tokens takes 30,517,578\.1 MiB, but cpu has"):
        runner.initialize_cache(10**12)


def test_a_model_with_other_logits_than_its_vocabulary_is_named(setup_runner: Make, make_request: Make) -> None:
    setup = setup_runner()
    setup.model.vocab_size = 41
    with pytest.raises(EngineError, match="logits of 41 tokens, but its configuration has a vocabulary of 40"):
        setup.driver.step((make_request([1]), 1))


def test_a_runner_without_a_model_says_so(setup_runner: Make) -> None:
    runner = setup_runner().runner
    runner.close()
    runner.close()
    with pytest.raises(EngineError, match="call load first"):
        runner.cache_layout()
