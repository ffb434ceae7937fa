"""The overhead benchmark drives the whole engine, and no step touches the plugin machinery."""

from __future__ import annotations

import json
import pstats
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vcore.bench.overhead import measure_overhead
from vcore.cli.bench import app


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
