"""The overhead benchmark drives the whole engine, and no step touches the plugin machinery."""

from __future__ import annotations

import itertools
import json
import pstats
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vcore.bench.overhead import measure_overhead
from vcore.bench.policy_stopwatch import PolicyStopwatch
from vcore.cli.bench import app
from vcore.interfaces.scheduling import QueueingPolicy, RequestView


def test_a_profile_of_steps_shows_the_engine_and_no_plugin_machinery(tmp_path: Path) -> None:
    profile = tmp_path / "steps.prof"
    result = measure_overhead(num_requests=8, cached_blocks=64, steps=40, profile=profile)
    assert result["num_requests"] == 8
    assert result["cached_blocks"] >= 64
    assert result["step_ms"] > 0
    files = {Path(frame[0]).as_posix() for frame in pstats.Stats(str(profile)).stats}  # type: ignore[attr-defined]
    assert any(name.endswith("vcore/scheduler/scheduler.py") for name in files)
    assert any(name.endswith("vcore/runner/model_runner.py") for name in files)
    assert not [name for name in files if "pluggy" in name or "vcore/plugins/" in name or "importlib" in name]


def test_the_command_prints_one_json_object() -> None:
    arguments = ["overhead", "--num-requests", "2", "--cached-blocks", "0", "--steps", "3", "--json"]
    result = CliRunner().invoke(app, [*arguments, "--set", "cache.eviction=fifo"])
    assert result.exit_code == 0, result.output
    assert {"num_requests", "step_ms"} <= set(json.loads(result.stdout))


@pytest.mark.parametrize("command", ["throughput", "latency", "startup", "overhead", "kernels"])
def test_every_benchmark_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "--json" in result.output


def test_requests_that_wait_give_the_policy_work_in_every_step() -> None:
    overrides = {"scheduler.policy": "fair_share"}
    result = measure_overhead(num_requests=8, cached_blocks=64, steps=20, waiting=50, overrides=overrides)
    assert result["waiting"] == 50
    assert result["policy_ms"] > 0


def test_without_waiting_requests_the_policy_is_not_timed() -> None:
    assert measure_overhead(num_requests=2, cached_blocks=0, steps=3)["policy_ms"] is None


def test_the_command_takes_a_policy() -> None:
    arguments = ["overhead", "--num-requests", "4", "--cached-blocks", "0", "--steps", "3", "--waiting", "9"]
    result = CliRunner().invoke(app, [*arguments, "--policy", "prefix_aware", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["waiting"] == 9
    assert CliRunner().invoke(app, [*arguments, "--policy", "no_such"]).exit_code != 0


class Walking(QueueingPolicy):
    def on_waiting(self, request: RequestView) -> None: ...

    def on_left(self, request: RequestView) -> None: ...

    def walk(self, now: float) -> Iterator[RequestView]:
        yield from ()

    def pick_victim(self, running: Sequence[RequestView]) -> int:
        return self.order_running(running, 0.0)[0]

    def order_running(self, running: Sequence[RequestView], now: float) -> list[int]:
        return [7]


def test_a_watched_policy_answers_as_before_and_its_time_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr("vcore.bench.policy_stopwatch.time.thread_time", lambda: float(next(ticks)))
    policy = Walking()
    stopwatch = PolicyStopwatch(policy)
    assert isinstance(policy, Walking)
    assert policy.pick_victim([]) == 7
    assert stopwatch.seconds == 1
    walk = policy.walk(0.0)
    assert stopwatch.seconds == 1
    assert list(walk) == []
    assert stopwatch.seconds == 2
    walk.close()  # type: ignore[attr-defined]
    assert stopwatch.seconds == 3
    assert policy.patience is None
