"""What is captured before the first step, and in which order, on the CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch

from vcore.runner import forward_pass
from vcore.runner.cuda_graphs import DecodeGraphs
from vcore.runner.recorder import GraphRecorder, Recorder, Replay
from vcore.testing import TapeRecorder

Make = Callable[..., Any]
SIZES: dict[str, Any] = {"graph_sizes": (1, 2, 4), "max_segment_tokens": 14, "keep_tokens_on_device": True}


class CountingRecorder(Recorder):
    """Records nothing; what is between `begin` and `end` is computed. Refuses the piece numbered `refused`."""

    refused: int | None = None

    def __init__(self) -> None:
        self.pieces = 0

    def session(self) -> AbstractContextManager[None]:
        return nullcontext()

    def begin(self) -> None:
        pass

    def end(self) -> Replay:
        self.pieces += 1
        if self.pieces == self.refused:
            raise RuntimeError("out of memory")
        return lambda: None

    def alias(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[CountingRecorder]:
    class Recording(CountingRecorder):
        pass

    monkeypatch.setattr(forward_pass, "GraphRecorder", Recording)
    return Recording


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("shares", [False, True])
def test_all_is_captured_before_the_first_step_the_largest_first(
    setup_runner: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, shares: bool
) -> None:
    setup = setup_runner(**SIZES)
    forward = setup.runner._forward
    assert not forward.graphs._graphs
    assert not forward._segments._recordings
    monkeypatch.setattr(forward.attention, "uses_shared_prefix", lambda rows, blocks: shares, raising=False)
    with caplog.at_level(logging.INFO, logger="vcore"):
        forward.record_all()
    kinds = [(samples, sharing) for samples in (True, False) for sharing in ((False, True) if shares else (False,))]
    assert list(forward.graphs._graphs) == [(size, *kind) for size in (4, 2, 1) for kind in kinds]
    assert list(forward._segments._recordings) == [14, 8]
    [record] = caplog.records
    assert f"captured {3 * len(kinds)} graphs and the segments of 2 sizes in " in record.message
    before = forward.graphs._recorder.pieces
    forward.record_all()
    assert forward.graphs._recorder.pieces == before  # once is enough


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("at_start", [False, True])
def test_the_setting_says_when(setup_runner: Make, at_start: bool) -> None:
    forward = setup_runner(**SIZES, capture_at_start=at_start).runner._forward
    assert bool(forward.graphs._graphs) == bool(forward._segments._recordings) == at_start


def test_where_nothing_is_captured_the_setting_changes_nothing(
    setup_runner: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="vcore"):
        setup = setup_runner(capture_at_start=True)
    assert not setup.model.contexts  # the model has not run
    assert not [record for record in caplog.records if "captured" in record.message]


@pytest.mark.parametrize("refused", [2, 8])
def test_what_fails_at_the_start_fails_once_and_leaves_the_other_kind(
    setup_runner: Make, counting: type[CountingRecorder], caplog: pytest.LogCaptureFixture, refused: int
) -> None:
    counting.refused = refused  # the second of the six graphs, or a piece of the first segments
    with caplog.at_level(logging.WARNING, logger="vcore"):
        setup = setup_runner(**SIZES, capture_at_start=True)
    [record] = caplog.records
    assert "out of memory" in record.message
    forward = setup.runner._forward
    assert forward.graphs.takes(1) == (refused > 6)
    assert forward._segments.takes(1) == (refused <= 6)
    assert len(forward.graphs._graphs) == (6 if refused > 6 else 0)
    assert len(forward._segments._recordings) == (0 if refused > 6 else 2)


def test_tokens_are_the_same_and_no_step_captures_anything(
    setup_runner: Make, make_request: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(setup: Any) -> list[list[int]]:
        requests = [make_request([i + 1] * (3 * i + 2), f"r{i}") for i in range(3)]
        for _ in range(6):
            setup.driver.step(*((request, min(7, request.num_tokens - request.computed)) for request in requests))
        return [request.output for request in requests]

    class EagerGraphs(DecodeGraphs):
        def _try_capture(self, size: int, samples: bool, shares: bool) -> Replay:
            return lambda: self._compute(size, samples, shares)

        def sample(self, *arguments: Any) -> torch.Tensor | None:
            sampled = super().sample(*arguments)
            return None if sampled is None else sampled.clone()

    expected = run(setup_runner())
    monkeypatch.setattr(forward_pass, "GraphRecorder", TapeRecorder)
    monkeypatch.setattr(forward_pass, "DecodeGraphs", EagerGraphs)
    setup = setup_runner(**SIZES, capture_at_start=True)
    for recorder in (EagerGraphs, forward_pass.Segments):
        name = "_try_capture" if recorder is EagerGraphs else "_try_record"
        monkeypatch.setattr(recorder, name, lambda *_: pytest.fail("captured in a step"))
    assert run(setup) == expected


def test_the_reason_for_a_failed_capture_is_what_the_user_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ending a capture that was broken fails too, and says less."""

    class Graph:
        def capture_begin(self, **_: Any) -> None:
            pass

        def capture_end(self) -> None:
            raise RuntimeError("operation failed due to a previous error during capture")

    class Stream:
        def wait_stream(self, stream: Any) -> None:
            pass

    for name, value in (
        ("graph_pool_handle", lambda: (0, 1)),
        ("Stream", Stream),
        ("current_stream", Stream),
        ("stream", lambda stream: nullcontext()),
        ("CUDAGraph", Graph),
    ):
        monkeypatch.setattr(torch.cuda, name, value)
    recorder = GraphRecorder()

    def record(cause: Exception | None) -> None:
        with recorder.session():
            recorder.begin()
            if cause is not None:
                raise cause
            recorder.end()

    with pytest.raises(RuntimeError, match="the cause"):
        record(RuntimeError("the cause"))
    with pytest.raises(RuntimeError, match="previous error"):
        record(None)
