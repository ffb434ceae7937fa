"""What every executor keeps to, whoever wrote it: one suite over all that are installed."""

from __future__ import annotations

import importlib
import os
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vcore.errors import EngineDeadError
from vcore.interfaces.executor import Executor, ExecutorContext
from vcore.interfaces.step import SampledTokens, SchedulerOutput
from vcore.kv_cache.layout import CacheGroup, CacheLayout
from vcore.plugins.hookspecs import ENTRY_POINT_GROUP
from vcore.plugins.specs import ExecutorSpec


class CountingHandle:
    """Gives one token a row: the step's number."""

    def __init__(self, output: SchedulerOutput) -> None:
        self.output = output

    def collect(self) -> SampledTokens:
        rows = self.output.rows
        if self.output.step_id < 0:
            raise ValueError("a step that fails when it is collected")
        return SampledTokens(
            step_id=self.output.step_id, rows=rows, token_ids=np.full(rows.size, self.output.step_id, dtype=np.int64)
        )


class CountingRunner:
    """A runner without a model. It can be made in any process: it holds nothing but numbers and writes files."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        self.folder: Path | None = None

    def load(self) -> None:
        assert 0 <= self.rank < self.world_size

    def cache_bytes_available(self) -> int:
        return 1000 - self.rank

    def cache_layout(self) -> CacheLayout:
        return CacheLayout((CacheGroup(None, (0,)), CacheGroup(8, (1,))), (10 + self.rank,))

    def initialize_cache(self, num_blocks: int) -> None:
        assert num_blocks >= 2

    def launch(self, output: SchedulerOutput) -> CountingHandle:
        return CountingHandle(output)

    def start_profile(self, folder: Path) -> None:
        self.folder = folder

    def stop_profile(self) -> None:
        assert self.folder is not None
        (self.folder / f"rank{self.rank}-{os.getpid()}").touch()

    def close(self) -> None:
        pass


def installed() -> list[ExecutorSpec]:
    specs: list[ExecutorSpec] = []
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        specs += getattr(entry.load(), "vcore_executors", list)()
    return specs


def build(spec: ExecutorSpec, world_size: int) -> Executor:
    load: Any = spec.load
    if isinstance(load, str):
        module, _, name = load.partition(":")
        load = getattr(importlib.import_module(module), name)
    return load(options=None, context=ExecutorContext(runner_factory=CountingRunner, world_size=world_size))


CASES = [
    pytest.param(spec, size, id=f"{spec.name}-{size}")
    for spec in installed()
    for size in (1, 2)
    if spec.max_world_size is None or size <= spec.max_world_size
]


@pytest.fixture
def executor(spec: ExecutorSpec, world_size: int) -> Any:
    made = build(spec, world_size)
    yield made
    made.shutdown()


def step(step_id: int, rows: list[int]) -> SchedulerOutput:
    index = np.array(rows, dtype=np.int32)
    return SchedulerOutput(
        step_id=step_id, rows=index, num_tokens=np.ones_like(index), samples=index >= 0, num_decodes=index.size
    )


def test_the_core_brings_at_least_one() -> None:
    assert "uniproc" in {spec.name for spec in installed()}


@pytest.mark.parametrize(("spec", "world_size"), CASES)
def test_it_loads_sizes_the_cache_and_runs_steps_in_order(executor: Executor, world_size: int) -> None:
    executor.load()
    assert executor.cache_bytes_available() == 1000 - (world_size - 1)
    layout = executor.cache_layout()
    assert (layout.windows, layout.bytes_per_block) == ((None, 8), 10 + (world_size - 1))
    executor.initialize_cache(4)
    executor.check_health()
    handles = [executor.launch(step(i, [3, 1])) for i in (5, 6)]
    for expected, handle in zip((5, 6), handles, strict=True):
        result = handle.collect()
        assert (result.step_id, result.rows.tolist(), result.token_ids.tolist()) == (expected, [3, 1], [expected] * 2)


@pytest.mark.parametrize(("spec", "world_size"), CASES)
def test_a_step_that_raises_leaves_it_able_to_go_on(executor: Executor, world_size: int) -> None:
    executor.load()
    executor.initialize_cache(4)
    with pytest.raises(Exception, match="fails when it is collected"):
        executor.launch(step(-1, [0])).collect()
    assert executor.launch(step(7, [0])).collect().token_ids.tolist() == [7]


@pytest.mark.parametrize(("spec", "world_size"), CASES)
def test_each_rank_writes_its_profile(executor: Executor, world_size: int, tmp_path: Path) -> None:
    executor.load()
    executor.start_profile(tmp_path)
    executor.stop_profile()
    assert {path.name.split("-")[0] for path in tmp_path.iterdir()} == {f"rank{i}" for i in range(world_size)}


@pytest.mark.parametrize(("spec", "world_size"), CASES)
def test_shutting_down_twice_is_harmless_and_then_it_is_dead(executor: Executor, world_size: int) -> None:
    executor.load()
    executor.shutdown()
    executor.shutdown()
    with pytest.raises(EngineDeadError):
        executor.check_health()


@pytest.mark.parametrize(("spec", "world_size"), CASES)
def test_shutting_down_before_loading_is_harmless(executor: Executor, world_size: int) -> None:
    executor.shutdown()
