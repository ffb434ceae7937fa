"""Profiles: a Chrome trace in the folder, named by rank, and errors that say what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vcore.errors import EngineError
from vcore.runner.profiler import StepProfiler


def test_the_trace_of_a_step_is_written(
    setup_runner: Callable[..., Any], make_request: Callable[..., Any], tmp_path: Path
) -> None:
    setup, folder = setup_runner(), tmp_path / "new" / "folder"
    setup.runner.start_profile(folder)
    setup.driver.run(make_request([1, 2, 3]), 2)
    setup.runner.stop_profile()
    (path,) = folder.iterdir()
    assert path.name.startswith("rank0-")
    names = {event.get("name") for event in json.loads(path.read_text())["traceEvents"]}
    assert "aten::index_select" in names


def test_two_profiles_are_two_files(tmp_path: Path) -> None:
    profiler = StepProfiler(3, torch.device("cpu"))
    for _ in range(2):
        profiler.start(tmp_path)
        path = profiler.stop()
        assert path.name.startswith("rank3-")
    assert len(list(tmp_path.glob("*.pt.trace.json"))) == 2


def test_starting_twice_and_stopping_without_a_start_are_errors(tmp_path: Path) -> None:
    profiler = StepProfiler(0, torch.device("cpu"))
    with pytest.raises(EngineError, match="call start_profile first"):
        profiler.stop()
    profiler.start(tmp_path)
    with pytest.raises(EngineError, match="call stop_profile before"):
        profiler.start(tmp_path)
    profiler.stop()
    assert not profiler.running


def test_a_runner_that_closes_writes_the_profile_that_is_running(
    setup_runner: Callable[..., Any], tmp_path: Path
) -> None:
    runner = setup_runner().runner
    runner.start_profile(tmp_path)
    runner.close()
    assert len(list(tmp_path.iterdir())) == 1
