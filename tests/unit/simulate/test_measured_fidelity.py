"""The whole of `measure_fidelity`, with an engine whose steps take exactly what a model of step times says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from vcore.bench.null_model import NullModel, write_null_model
from vcore.config import EngineConfig, load_config
from vcore.interfaces.attention import AttentionContext
from vcore.plugins.specs import ModelSpec
from vcore.simulate.fidelity import measure_fidelity
from vcore.traces import Trace, TraceRequest


class WorkClock:
    """Stands still but for what the model computes and what the engine sleeps."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds + 1e-9  # beyond rounding


CLOCK = WorkClock()


class TimedModel(NullModel):
    """Each step takes 2 ms, 20 us a token and 0.5 us a query-key pair of the clock."""

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        attn: AttentionContext,
        intermediate: torch.Tensor | None = None,
    ) -> torch.Tensor:
        CLOCK.now += 2e-3 + 2e-5 * len(input_ids) + 5e-7 * float((positions + 1).sum())
        return super().forward(input_ids, positions, attn, intermediate)


TIMED = ModelSpec(name="timed", load=TimedModel, api="1.0", summary="test", architectures=("VcoreTimedModel",))


@pytest.fixture
def config(tmp_path: Path) -> EngineConfig:
    write_null_model(tmp_path, 512)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(
        json.dumps(written | {"architectures": ["VcoreTimedModel"]}), encoding="utf-8"
    )
    tree = {
        "model": {"path": str(tmp_path), "load_format": "dummy", "skip_tokenizer": True},
        "cache": {"block_size": 16, "num_blocks": 100, "eviction": "lru"},
        "scheduler": {"max_num_seqs": 8, "max_num_batched_tokens": 96, "policy": "fcfs"},
        "runtime": {"device": "cpu", "num_threads": 1},
    }
    return load_config(tree, {})


def conversations() -> Trace:
    """Turns that repeat what was said before, faster than the engine serves them for a while."""
    rng = np.random.default_rng(3)
    requests: list[TraceRequest] = []
    own = 1000
    for turn in range(6):
        for talk in range(10):
            length = int(rng.integers(20, 40)) + 40 * turn
            ids = [*(talk * 50 + column for column in range(-(-length // 16) - 1)), own]
            own += 1
            requests.append(
                TraceRequest(
                    arrival_s=0.3 * turn + float(rng.uniform(0, 0.2)),
                    input_length=length,
                    output_length=int(rng.integers(1, 40)),
                    block_ids=tuple(ids),
                )
            )
    first = min(one.arrival_s for one in requests)
    moved: Sequence[TraceRequest] = sorted(
        (
            TraceRequest(
                arrival_s=one.arrival_s - first,
                input_length=one.input_length,
                output_length=one.output_length,
                block_ids=one.block_ids,
            )
            for one in requests
        ),
        key=lambda one: one.arrival_s,
    )
    return Trace("conversations", "csv", tuple(moved), 16)


def test_an_engine_that_keeps_to_the_model_is_told_exactly(config: EngineConfig) -> None:
    lines: list[str] = []
    found = measure_fidelity(config, conversations(), repeats=1, plugins=[TIMED], clock=CLOCK, report=lines.append)
    assert (found["num_requests"], found["num_cut"]) == (60, 0)
    assert found["calibration_error"]["p99"] < 1e-3
    engine = found["engine"]
    assert engine["hit_rate"] > 0.1
    assert found["driven_hit_rate"] == engine["hit_rate"]
    for name in ("simulation", "fitted_to_run"):
        assert found[name]["hit_rate"] == pytest.approx(engine["hit_rate"], abs=0.01)
        for key in ("ttft_s", "itl_s", "e2e_s"):
            assert found[name][key] == pytest.approx(engine[key], rel=0.02), (name, key)
    assert lines[-1] == "60 requests in real time, 2 s"


def test_requests_that_the_engine_cannot_hold_are_cut(config: EngineConfig) -> None:
    long = Trace("long", "csv", (TraceRequest(arrival_s=0.0, input_length=700, output_length=4),) * 3, None)
    found = measure_fidelity(config, long, repeats=1, plugins=[TIMED], clock=CLOCK)
    assert found["num_cut"] == 3
