"""`UniprocExecutor`: it hands everything to one runner, and says what is wrong when it cannot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vcore.errors import ConfigError, EngineDeadError
from vcore.executor.plugin import vcore_executors
from vcore.executor.uniproc import UniprocExecutor
from vcore.interfaces.executor import ExecutorContext
from vcore.interfaces.step import SchedulerOutput


class Recorder:
    """A runner that writes down what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.answer: object = None

    def __getattr__(self, name: str) -> Callable[..., object]:
        def record(*args: object) -> object:
            self.calls.append((name, *args))
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        return record


@pytest.fixture
def runner() -> Recorder:
    return Recorder()


@pytest.fixture
def executor(runner: Recorder) -> UniprocExecutor:
    ranks: list[tuple[int, int]] = []

    def make(rank: int, world_size: int) -> Any:
        ranks.append((rank, world_size))
        assert ranks == [(0, 1)]
        return runner

    return UniprocExecutor(options=None, context=ExecutorContext(runner_factory=make))


def step() -> SchedulerOutput:
    empty = np.empty(0, dtype=np.int32)
    return SchedulerOutput(step_id=1, rows=empty, num_tokens=empty, samples=empty.astype(bool))


def test_everything_goes_to_the_runner_of_rank_0(executor: UniprocExecutor, runner: Recorder, tmp_path: Path) -> None:
    executor.load()
    output = step()
    runner.answer = 42
    assert executor.cache_bytes_available() == executor.cache_layout() == 42
    executor.initialize_cache(9)
    assert executor.launch(output) == 42
    executor.start_profile(tmp_path)
    executor.stop_profile()
    executor.check_health()
    executor.shutdown()
    executor.shutdown()
    assert runner.calls == [
        ("load",),
        ("cache_bytes_available",),
        ("cache_layout",),
        ("initialize_cache", 9),
        ("launch", output),
        ("start_profile", tmp_path),
        ("stop_profile",),
        ("close",),
    ]


def test_errors_of_a_step_reach_the_caller_as_they_are(executor: UniprocExecutor, runner: Recorder) -> None:
    executor.load()
    runner.answer = KeyError("in the model")
    with pytest.raises(KeyError, match="in the model"):
        executor.launch(step())


def test_more_than_one_rank_is_refused() -> None:
    context = ExecutorContext(runner_factory=lambda rank, size: Recorder(), world_size=2)  # type: ignore[arg-type,return-value]
    with pytest.raises(ConfigError, match=r"runs one rank, but 2 were asked for \(runtime.tensor_parallel_size\)"):
        UniprocExecutor(options=None, context=context)


def test_a_model_is_needed_before_anything_else(executor: UniprocExecutor) -> None:
    with pytest.raises(EngineDeadError, match="call load first"):
        executor.launch(step())


def test_after_shutdown_it_is_dead(executor: UniprocExecutor) -> None:
    executor.load()
    executor.shutdown()
    for call in (executor.check_health, executor.load, executor.cache_bytes_available):
        with pytest.raises(EngineDeadError, match="was shut down"):
            call()


def test_the_registration_states_one_rank_and_imports_no_torch() -> None:
    (spec,) = vcore_executors()
    assert (spec.name, spec.api, spec.max_world_size, spec.rank) == ("uniproc", "1.0", 1, 0)
    script = "import sys, vcore.executor.plugin; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
