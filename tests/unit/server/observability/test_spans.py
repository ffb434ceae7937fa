"""Traces: the spans of a request, in its caller's trace."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from vcore.config import ServerSettings
from vcore.errors import ConfigError
from vcore.server import create_app
from vcore.server.observability import Observability, install
from vcore.server.observability.spans import otlp_provider

pytest.importorskip("opentelemetry.sdk")
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def traced(make_server: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("vcore.server.observability.observability.otlp_provider", lambda endpoint: provider)
    return make_server(otlp_traces_endpoint="http://collector:4318/v1/traces", model_names=("my-model",)), exporter


def finish(server: Any, record: Any) -> None:
    for listener in server.engine.listeners:
        listener.on_finished(record)


def spans_of(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def test_a_request_and_its_phases(traced: Any, make_request: Any) -> None:
    server, exporter = traced
    finish(server, make_request())
    spans = spans_of(exporter)
    lengths = {name: round(seconds(span), 3) for name, span in spans.items()}
    assert lengths == {"llm_request": 7.0, "queue": 1.0, "prefill": 2.0, "decode": 4.0}
    root = spans["llm_request"]
    assert root.parent is None
    for name in ("queue", "prefill", "decode"):
        parent = spans[name].parent
        assert parent is not None
        assert parent.span_id == root.context.span_id
    attributes = dict(root.attributes or {})
    assert attributes["gen_ai.request.model"] == "my-model"
    assert attributes["gen_ai.usage.input_tokens"] == 12
    assert attributes["gen_ai.usage.output_tokens"] == 3
    assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert "secret stop" not in str(attributes)


def test_it_is_part_of_its_caller_s_trace(traced: Any, make_request: Any) -> None:
    server, exporter = traced
    headers = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01", "tracestate": "vendor=1"}
    answer = server.post("/v1/completions", {"prompt": "hi", "max_tokens": 2}, headers=headers).json()
    finish(server, make_request(answer["id"]))
    root = spans_of(exporter)["llm_request"]
    assert root.parent is not None
    assert f"{root.parent.span_id:016x}" == SPAN_ID
    assert f"{root.context.trace_id:032x}" == TRACE_ID
    assert root.context.trace_state.get("vendor") == "1"
    assert dict(root.attributes or {})["http.route"] == "/v1/completions"


@pytest.mark.parametrize("header", ["", "rubbish", "00-0-0-01", "ÿ"])
def test_a_traceparent_that_is_none_begins_a_trace(traced: Any, make_request: Any, header: str) -> None:
    server, exporter = traced
    headers = {"traceparent": header.encode("latin-1")}
    answer = server.post("/v1/completions", {"prompt": "hi", "max_tokens": 2}, headers=headers)
    assert answer.status_code == 200
    finish(server, make_request(answer.json()["id"]))
    assert spans_of(exporter)["llm_request"].parent is None


def test_a_request_that_failed_in_the_queue(traced: Any, make_request: Any) -> None:
    server, exporter = traced
    finish(server, make_request(times=(1.0, None, None, 3.0), finish_reasons=("error",)))
    spans = spans_of(exporter)
    assert set(spans) == {"llm_request", "queue"}
    assert seconds(spans["queue"]) == pytest.approx(2.0)
    assert spans["llm_request"].status.status_code is StatusCode.ERROR


def test_spans_are_sent_when_the_application_ends(traced: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server, _ = traced
    closed = []
    monkeypatch.setattr(server.app.state.observability._spans._provider, "shutdown", lambda: closed.append(True))

    async def live() -> None:
        async with server.app.router.lifespan_context(server.app):
            assert not closed

    asyncio.run(live())
    assert closed == [True]


def test_the_exporter_goes_to_the_endpoint() -> None:
    provider = otlp_provider("http://127.0.0.1:9/v1/traces")
    assert provider.resource.attributes["service.name"] == "vcore"
    provider.shutdown()


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, scripted: Any) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    settings = ServerSettings(otlp_traces_endpoint="http://127.0.0.1:9/v1/traces")
    with pytest.raises(ConfigError, match=r"vcore-engine\[otel\]"):
        create_app(scripted(), settings)


def test_an_observability_of_one_s_own_can_be_installed(scripted: Any) -> None:
    from fastapi import FastAPI

    engine, app = scripted(), FastAPI()
    mine = Observability(engine, ServerSettings())
    install(app, engine, ServerSettings(), observability=mine)
    assert app.state.observability is mine
