"""Steps in segments, on the CPU: `TapeRecorder` records what a device would."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from vcore.interfaces.attention import AttentionContext, AttentionMetadata, GroupContext
from vcore.runner import forward_pass
from vcore.runner.segments import Segments, Step
from vcore.testing import TapeRecorder, build_attention_metadata

Make = Callable[..., Any]
CPU = torch.device("cpu")


@pytest.fixture
def with_segments(setup_runner: Make, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a runner that records steps of up to 14 tokens."""
    monkeypatch.setattr(forward_pass, "GraphRecorder", TapeRecorder)
    return lambda **fields: setup_runner(num_blocks=200, max_segment_tokens=14, keep_tokens_on_device=True, **fields)


def run_all(driver: Any, make_request: Make, depth: int) -> list[list[int]]:
    """Five requests that come one after another, in chunks of up to twelve tokens beside the others' decode rows."""
    running = [make_request([(5 * i + j) % 40 for j in range(4 + 5 * i)], f"r{i}") for i in range(5)]
    running[1].params = running[1].params.model_copy(update={"temperature": 0.9, "seed": 5})
    for step in range(200):
        wanted = []
        for i, request in enumerate(running):
            if step >= 2 * i and len(request.output) + request.launched < 9 + i:
                wanted.append((request, min(12, request.num_tokens - request.computed)))
        if wanted:
            driver.launch(wanted)
        if driver.in_flight and (len(driver.in_flight) >= depth or not wanted):
            driver.collect()
    assert all(len(request.output) == 9 + i for i, request in enumerate(running))
    return [request.output for request in running]


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("windows", [(None,), (None, 6)])
def test_tokens_are_those_of_steps_launched_one_by_one(
    setup_runner: Make, with_segments: Make, make_request: Make, windows: tuple[int | None, ...], depth: int
) -> None:
    expected = run_all(setup_runner(num_blocks=200, windows=windows).driver, make_request, 1)
    setup = with_segments(windows=windows)
    assert run_all(setup.driver, make_request, depth) == expected
    assert sorted(setup.runner._forward._segments._recordings) == [8, 14]
    # The model itself ran twice for each size, and for no other step but those of more tokens.
    sizes = [context.layer_groups[0].slot_mapping.shape[0] for context in setup.model.contexts]
    assert [size for size in sizes if size <= 14] == [8, 8, 14, 14]
    assert max(sizes) > 14


def test_a_model_that_reads_lengths_elsewhere_goes_on_without(
    setup_runner: Make,
    with_segments: Make,
    make_request: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = run_all(setup_runner(num_blocks=200).driver, make_request, 1)
    setup = with_segments()
    forward = setup.model.forward

    def reads(input_ids: torch.Tensor, positions: torch.Tensor, attn: AttentionContext) -> torch.Tensor:
        assert attn.layer_groups[0].metadata.num_tokens == input_ids.shape[0]
        return forward(input_ids, positions, attn)

    monkeypatch.setattr(setup.model, "forward", reads)
    with caplog.at_level(logging.WARNING, logger="vcore"):
        assert run_all(setup.driver, make_request, 1) == expected
    [record] = caplog.records
    assert "reads the step's metadata" in record.message
    assert "AttentionContext.run" in record.message


def test_without_a_size_nothing_is_recorded(setup_runner: Make) -> None:
    assert setup_runner().runner._forward._segments is None


def step_of(values: list[int]) -> Step:
    metadata = build_attention_metadata([len(values)], [len(values)], [[1, 2, 3, 4]], block_size=4, device=CPU)
    group = GroupContext(metadata, metadata)
    ids = torch.tensor(values)
    return Step(ids, ids * 2, [group], AttentionContext([group], []))


def attend(attn: AttentionContext, out: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """A stand-in for attention, which gives a tensor of its own even if it is told where to write."""
    plan = attn.layer_groups[0].plan
    assert isinstance(plan, AttentionMetadata)
    assert x.shape[0] == plan.num_tokens
    return x.cumsum(0) + plan.max_seq_len


def model(input_ids: torch.Tensor, positions: torch.Tensor, attn: AttentionContext) -> torch.Tensor:
    x = (input_ids + positions + attn.layer_groups[0].slot_mapping).double()[:, None].repeat(1, 3)
    return attn.run(attend, attn.run(attend, x) * 2 + x)


def segments_of(sizes: tuple[int, ...], model: Any = model) -> Segments:
    return Segments(model, TapeRecorder(), sizes, (0,), num_groups=1, device=CPU)


def test_padding_reaches_no_token() -> None:
    segments = segments_of((4, 6))
    for values in ([3, 1, 2], [9], [5, 5, 5, 5, 5], [7, 1], [1] * 6, [2, 8, 4, 6], [6, 6, 6, 6, 6]):
        step = step_of(values)
        found = segments.run(step)
        assert found is not None
        assert torch.equal(found, model(step.input_ids, step.positions, step.attn))
        size = 4 if len(values) <= 4 else 6
        for call in segments._recordings[size].calls:
            assert not call.out[len(values) :].any()
            call.out.fill_(float("nan"))  # as whoever else has the memory might leave it
    assert segments.takes(6)
    assert not segments.takes(7)


def test_what_cannot_be_recorded_is_computed_and_then_left(caplog: pytest.LogCaptureFixture) -> None:
    def waits(input_ids: torch.Tensor, positions: torch.Tensor, attn: AttentionContext) -> torch.Tensor:
        return model(input_ids, positions, attn) * int(input_ids.sum())

    segments = segments_of((4,), waits)
    step = step_of([1, 2])
    found = segments.run(step)
    assert found is not None
    assert torch.equal(found, waits(step.input_ids, step.positions, step.attn))
    assert not segments.takes(1)
    assert "recording one failed: a value that the host waits for" in caplog.text


def test_other_errors_of_a_model_are_its_own() -> None:
    def broken(input_ids: torch.Tensor, positions: torch.Tensor, attn: AttentionContext) -> torch.Tensor:
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        segments_of((4,), broken).run(step_of([1]))
