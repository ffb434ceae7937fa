"""`RequestSpans`: a trace of each request for OpenTelemetry, with its queue, prefill and decode as children.

Attribute names are those of OpenTelemetry's semantic conventions for generative AI, where they have one. The client's
trace context (W3C ``traceparent``) becomes the parent, so that a request is part of its caller's trace.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from vcore.errors import ConfigError
from vcore.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from vcore.engine.records import EngineStatus, RequestRecord, StepRecord
    from vcore.server.observability.request_notes import RequestNote, RequestNotes

__all__ = ["RequestSpans", "check_otlp", "otlp_provider"]


def check_otlp(endpoint: str) -> None:
    """That spans can be sent to `endpoint`, as far as it lies with what is installed.

    Raises:
        ConfigError: the extra ``otel`` is not installed.
    """
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.resources
        import opentelemetry.sdk.trace
        import opentelemetry.sdk.trace.export  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"otlp_traces_endpoint is {endpoint!r}, but the OpenTelemetry packages cannot be imported ({error}); "
            "install them with `pip install 'vcore-engine[otel]'`, or leave the setting out"
        ) from error


def otlp_provider(endpoint: str) -> TracerProvider:
    """A provider that sends spans in batches, from a thread of its own.

    Args:
        endpoint: the collector's URL for traces over HTTP, such as ``http://localhost:4318/v1/traces``.

    Raises:
        ConfigError: as `check_otlp`.
    """
    check_otlp(endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "vcore", "service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return provider


class RequestSpans:
    """A listener that makes a request's spans when it has ended: nothing is done while it runs."""

    def __init__(self, provider: TracerProvider, notes: RequestNotes, model_name: str) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("vcore", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._notes = notes
        self._model_name = model_name
        self._epoch = time.time() - time.monotonic()

    def on_step(self, record: StepRecord) -> None:
        """Nothing: a span a step would be too many."""

    def on_engine(self, status: EngineStatus) -> None:
        """Nothing."""

    def on_finished(self, record: RequestRecord) -> None:
        """Make the spans of a request."""
        from opentelemetry.trace import SpanKind, set_span_in_context

        metrics, note = record.metrics, self._notes.get(record.request_id)
        end = metrics.finished_time if metrics.finished_time is not None else time.monotonic()
        root = self._tracer.start_span(
            "llm_request",
            context=self._parent(note),
            kind=SpanKind.SERVER,
            attributes=self._attributes(record, note),
            start_time=self._nanoseconds(metrics.arrival_time),
        )
        if "error" in record.finish_reasons:
            from opentelemetry.trace import StatusCode

            root.set_status(StatusCode.ERROR, "the engine ended the request with an error")
        inside = set_span_in_context(root)
        times = (metrics.arrival_time, metrics.first_scheduled_time, metrics.first_token_time)
        for index, name in enumerate(("queue", "prefill", "decode")):
            begin = times[index]
            if begin is None:
                break
            following = times[index + 1] if index + 1 < len(times) else None
            child = self._tracer.start_span(name, context=inside, start_time=self._nanoseconds(begin))
            child.end(self._nanoseconds(end if following is None else following))
        root.end(self._nanoseconds(end))

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    def _parent(self, note: RequestNote | None) -> Any:  # opentelemetry's Context
        if note is None or note.traceparent is None:
            return self._propagator.extract({})
        carrier = {"traceparent": note.traceparent}
        if note.tracestate is not None:
            carrier["tracestate"] = note.tracestate
        return self._propagator.extract(carrier)

    def _attributes(self, record: RequestRecord, note: RequestNote | None) -> dict[str, Any]:
        params, metrics = record.params, record.metrics
        asked: dict[str, Any] = {
            "gen_ai.request.temperature": params.temperature,
            "gen_ai.request.top_p": params.top_p,
            "gen_ai.request.max_tokens": params.max_tokens,
            "gen_ai.request.n": params.n,
        }
        if record.pooling is not None:
            asked = {"gen_ai.embeddings.dimension.count": record.pooling.dimensions}
        attributes = {
            "gen_ai.operation.name": "embeddings" if record.pooling is not None else None,
            "gen_ai.request.id": record.request_id,
            "gen_ai.request.model": self._model_name,
            **asked,
            "gen_ai.usage.input_tokens": record.num_prompt_tokens,
            "gen_ai.usage.cached_tokens": record.num_cached_tokens,
            "gen_ai.usage.output_tokens": record.num_output_tokens,
            "gen_ai.response.finish_reasons": list(record.finish_reasons),
            "gen_ai.latency.time_in_queue": metrics.queue_time,
            "gen_ai.latency.time_to_first_token": metrics.ttft,
            "vcore.num_preemptions": metrics.num_preemptions,
            "http.route": None if note is None else note.path,
        }
        return {name: value for name, value in attributes.items() if value is not None}

    def _nanoseconds(self, monotonic: float) -> int:
        return int((monotonic + self._epoch) * 1e9)
