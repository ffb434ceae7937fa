"""`EngineMetrics`: a listener of the engine that counts what it hears, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcore.engine.request import FinishReason
from vcore.server.observability.definitions import METRICS
from vcore.server.observability.instruments import Counter, FollowedCounter, Histogram, LabelledCounter

if TYPE_CHECKING:
    from vcore.engine.records import EngineStatus, RequestRecord, StepRecord
    from vcore.outputs import RequestMetrics
    from vcore.scheduler import SchedulerStats

__all__ = ["EngineMetrics"]

_SUCCESS = {reason.value: (reason.value,) for reason in FinishReason}
"""Label values made once, by reason."""


class EngineMetrics:
    """Counters and histograms of steps, requests and the engine's life, by their names without ``vcore:``.

    Latencies of tokens are counted with their step, so that a long generation shows while it runs; those of requests at
    their ends. A step costs a few histogram entries and additions; nothing is formatted before a scrape.
    """

    def __init__(self) -> None:
        engine = {one.name.removeprefix("vcore:"): one for one in METRICS if one.of_engine}
        self.histograms = {name: Histogram(one.buckets) for name, one in engine.items() if one.kind == "histogram"}
        self.prompt_tokens = Counter()
        self.generation_tokens = Counter()
        self.prefix_queries = FollowedCounter()
        self.prefix_hits = FollowedCounter()
        self.preemptions = FollowedCounter()
        self.failed_steps = FollowedCounter()
        self.restarts = FollowedCounter()
        self.finished = LabelledCounter(known=_SUCCESS.values())
        self._step_tokens = self.histograms["iteration_tokens_total"]
        self._step_seconds = self.histograms["iteration_seconds"]
        self._first_token = self.histograms["time_to_first_token_seconds"]
        self._inter_token = self.histograms["inter_token_latency_seconds"]

    def on_step(self, record: StepRecord) -> None:
        """Count a step."""
        self.prompt_tokens.add(record.num_prompt_tokens)
        self.generation_tokens.add(record.num_output_tokens)
        if record.index:
            self._step_tokens.observe(record.num_prompt_tokens + record.num_decodes)
            self._step_seconds.observe(record.end - record.start)
        self._first_token.observe_many(record.first_token_latencies)
        self._inter_token.observe_many(record.inter_token_latencies)
        self._follow(record.stats)

    def on_finished(self, record: RequestRecord) -> None:
        """Count a request that ended, however it did; times only as far as it came."""
        for reason in record.finish_reasons:
            self.finished.add(_SUCCESS.get(reason) or (reason,))
        histograms, params = self.histograms, record.params
        histograms["request_prompt_tokens"].observe(record.num_prompt_tokens)
        if record.pooling is None:  # an embedding generates nothing, and has no times of tokens either
            histograms["request_generation_tokens"].observe(record.num_output_tokens)
            histograms["request_params_n"].observe(params.n)
            if params.max_tokens is not None:
                histograms["request_params_max_tokens"].observe(params.max_tokens)
        self._times(record.metrics)

    def on_engine(self, status: EngineStatus) -> None:
        """Count restarts; a new engine process counts its own totals from zero."""
        if status.restarts > self.restarts.value:
            for total in (self.prefix_queries, self.prefix_hits, self.preemptions, self.failed_steps):
                total.restart()
        self.restarts.follow(status.restarts)
        self.failed_steps.follow(status.failed_steps)

    def _follow(self, stats: SchedulerStats) -> None:
        self.prefix_queries.follow(stats.prefix_query_tokens)
        self.prefix_hits.follow(stats.prefix_hit_tokens)
        self.preemptions.follow(stats.preemptions)

    def _times(self, metrics: RequestMetrics) -> None:
        histograms = self.histograms
        arrival, started = metrics.arrival_time, metrics.first_scheduled_time
        first, last, end = metrics.first_token_time, metrics.last_token_time, metrics.finished_time
        if end is not None:
            histograms["e2e_request_latency_seconds"].observe(end - arrival)
        if started is not None:
            histograms["request_queue_time_seconds"].observe(started - arrival)
        if first is None or last is None:
            return
        histograms["request_decode_time_seconds"].observe(last - first)
        if started is not None:
            histograms["request_prefill_time_seconds"].observe(first - started)
            histograms["request_inference_time_seconds"].observe(last - started)
        gaps = metrics.inter_token_latencies
        if gaps:
            histograms["request_time_per_output_token_seconds"].observe(sum(gaps) / len(gaps))
