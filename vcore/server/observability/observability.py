"""`Observability`: everything that watches one server, put together, and what is noted of a request for them."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TextIO

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

from vcore.server.observability.chrome_trace import chrome_trace
from vcore.server.observability.engine_metrics import EngineMetrics
from vcore.server.observability.engine_watch import EngineMoment, EngineWatch
from vcore.server.observability.exposition import EngineCollector, HttpCollector
from vcore.server.observability.http_metrics import HttpMetrics
from vcore.server.observability.json_log import JsonLog
from vcore.server.observability.request_log import RequestLog
from vcore.server.observability.request_notes import RequestNotes
from vcore.server.observability.spans import RequestSpans, otlp_provider
from vcore.server.observability.timeline import Timeline, Window

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from vcore.config import ServerSettings
    from vcore.engine.async_llm import AsyncLLM
    from vcore.engine.records import EngineListener

__all__ = ["Observability"]


class Observability:
    """One a server: nothing of it is global, so that several servers in a process do not mix."""

    def __init__(
        self,
        engine: AsyncLLM,
        settings: ServerSettings,
        *,
        log_stream: TextIO | None = None,
        provider: TracerProvider | None = None,
    ) -> None:
        """Begin to watch `engine`.

        Args:
            engine: started or not.
            settings: what to log and where to send traces.
            log_stream: where request logs go; stderr if not given.
            provider: makes the spans; if not given, one for `ServerSettings.otlp_traces_endpoint`, if that is set.

        Raises:
            ConfigError: traces are asked for without the extra that sends them.
        """
        self.watch = EngineWatch(engine, settings)
        self.timeline = Timeline()
        self.http = HttpMetrics()
        self.log: RequestLog | None = None
        self._notes = RequestNotes(with_prompts=settings.log_requests and settings.log_prompts)
        self._json_log: JsonLog | None = None
        self._spans: RequestSpans | None = None
        self.metrics = EngineMetrics()
        listeners: list[EngineListener] = [self.metrics, self.timeline]
        if settings.log_requests:
            self._json_log = JsonLog(sys.stderr if log_stream is None else log_stream)
            self.log = RequestLog(self._json_log, self._notes, decode=engine.decode)
            listeners.append(self.log)
        if provider is None and settings.otlp_traces_endpoint is not None:
            provider = otlp_provider(settings.otlp_traces_endpoint)
        if provider is not None:
            self._spans = RequestSpans(provider, self._notes, (*settings.model_names, "")[0])
            listeners.append(self._spans)
        # Last, because a note is dropped when its request has ended.
        for listener in (*listeners, self._notes):
            engine.add_listener(listener)
        self._registry = CollectorRegistry()
        self._moment: EngineMoment | None = None
        self._registry.register(EngineCollector(self.metrics, lambda: self._moment))
        self._registry.register(HttpCollector(self.http))
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    @property
    def wanted_notes(self) -> RequestNotes | None:
        """Where to note what the engine is asked for; None if nobody reads it."""
        return None if self._json_log is None and self._spans is None else self._notes

    async def exposition(self) -> bytes:
        """All metrics in Prometheus' text format, version 0.0.4.

        Always in this one: in OpenMetrics, prometheus_client writes colons of names as underscores.
        """
        self._moment = await self.watch.moment()
        return generate_latest(self._registry)

    def trace(self, window: Window) -> dict[str, object]:
        """A window of the timeline as a trace file."""
        return chrome_trace(window, wall_start=time.time() - (time.monotonic() - window.start))

    def close(self) -> None:
        """Write and send what is left; harmless twice."""
        if self._json_log is not None:
            self._json_log.close()
        if self._spans is not None:
            self._spans.close()
