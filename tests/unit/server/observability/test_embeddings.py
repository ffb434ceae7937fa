"""Requests that embed: counted with their prompts and times, and without what only texts have."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from vcore.pooling_params import PoolingParams
from vcore.server.observability.chrome_trace import chrome_trace
from vcore.server.observability.engine_metrics import EngineMetrics
from vcore.server.observability.json_log import JsonLog
from vcore.server.observability.request_log import RequestLog
from vcore.server.observability.request_notes import RequestNotes
from vcore.server.observability.spans import RequestSpans
from vcore.server.observability.timeline import Timeline

POOLING = PoolingParams(dimensions=64, normalize=True, priority=2)


@pytest.fixture
def record(make_request: Any) -> Any:
    """It waited for a second and was computed in two."""
    times = (1.0, 2.0, None, 4.0)
    return make_request("embd-1", times=times, num_output_tokens=0, pooling=POOLING)


def test_metrics_count_prompts_and_times_and_nothing_of_tokens(record: Any) -> None:
    metrics = EngineMetrics()
    metrics.on_finished(record)
    counts = {name: histogram.count for name, histogram in metrics.histograms.items() if histogram.count}
    assert counts == {
        "request_prompt_tokens": 1,
        "e2e_request_latency_seconds": 1,
        "request_queue_time_seconds": 1,
    }


def test_the_log_has_what_was_asked(record: Any) -> None:
    stream = io.StringIO()
    log = JsonLog(stream)
    RequestLog(log, RequestNotes(), str).on_finished(record)
    log.close()
    line = json.loads(stream.getvalue())
    assert (line["num_prompt_tokens"], line["num_output_tokens"], line["finish_reasons"]) == (12, 0, ["stop"])
    assert (line["queue_s"], line["ttft_s"], line["mean_itl_s"], line["e2e_s"]) == (1.0, None, None, 3.0)
    assert line["params"] == {"dimensions": 64, "normalize": True, "priority": 2}


def test_a_trace_has_a_queue_and_a_prefill(record: Any) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    RequestSpans(provider, RequestNotes(), "m").on_finished(record)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {"llm_request", "queue", "prefill"}
    attributes = dict(spans["llm_request"].attributes or {})
    assert attributes["gen_ai.operation.name"] == "embeddings"
    assert attributes["gen_ai.embeddings.dimension.count"] == 64
    assert attributes["gen_ai.usage.input_tokens"] == 12
    assert not [name for name in attributes if "temperature" in name or "first_token" in name]


def test_the_timeline_draws_it(record: Any) -> None:
    timeline = Timeline(clock=lambda: 5.0)
    timeline.on_finished(record)
    events = chrome_trace(timeline.last(5.0), wall_start=0.0)["traceEvents"]
    assert {"queued", "prefill"} <= {event["name"] for event in events}
    assert "decode" not in {event["name"] for event in events}
