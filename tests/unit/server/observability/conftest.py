"""Records as an engine would tell them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vcore.engine.records import RequestRecord, StepRecord
from vcore.outputs import RequestMetrics
from vcore.sampling_params import SamplingParams
from vcore.scheduler import SchedulerStats


def stats_of(**changes: Any) -> SchedulerStats:
    counts = {
        "running": 2,
        "waiting": 1,
        "used_blocks": 25,
        "free_blocks": 75,
        "cached_blocks": 40,
        "prefix_query_tokens": 100,
        "prefix_hit_tokens": 60,
        "preemptions": 0,
    }
    return SchedulerStats(**(counts | changes))


def step_of(index: int = 1, **changes: Any) -> StepRecord:
    values: dict[str, Any] = {
        "index": index,
        "start": float(index),
        "end": index + 0.5,
        "num_prompt_tokens": 10,
        "num_decodes": 3,
        "num_requests": 4,
        "num_output_tokens": 4,
        "stats": stats_of(),
    }
    return StepRecord(**(values | changes))


def request_of(request_id: str = "a", *, times: tuple[float | None, ...] = (1.0, 2.0, 4.0, 8.0), **changes: Any) -> Any:
    """A request with the times of arrival, first step, first token and end; `None` for what it did not reach."""
    arrival, started, first, end = times
    assert arrival is not None
    values: dict[str, Any] = {
        "request_id": request_id,
        "priority": 0,
        "num_prompt_tokens": 12,
        "num_cached_tokens": 4,
        "num_output_tokens": 3,
        "finish_reasons": ("stop",),
        "metrics": RequestMetrics(
            arrival_time=arrival,
            first_scheduled_time=started,
            first_token_time=first,
            last_token_time=None if first is None else end,
            finished_time=end,
            inter_token_latencies=[] if first is None else [1.0, 3.0],
        ),
        "params": SamplingParams(max_tokens=20, temperature=0.5, stop="secret stop"),
    }
    return RequestRecord(**(values | changes))


@pytest.fixture(scope="session")
def make_stats() -> Callable[..., SchedulerStats]:
    return stats_of


@pytest.fixture(scope="session")
def make_step() -> Callable[..., StepRecord]:
    return step_of


@pytest.fixture(scope="session")
def make_request() -> Callable[..., RequestRecord]:
    return request_of
