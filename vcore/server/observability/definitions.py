"""Every metric: its name, kind, labels and meaning. The documentation has the same table, and a test compares them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["COMMON_LABELS", "METRICS", "MetricDefinition"]

COMMON_LABELS = ("model_name", "scheduling_policy", "eviction_policy", "attention_backend")
"""On every metric of the engine; each has one value as long as the server runs."""

_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0,
)  # fmt: skip
"""Of waits and whole requests: milliseconds on a device, minutes on a small CPU."""
_TOKEN_SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075,
    0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Of single tokens and steps."""
_TOKENS = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))
_STEP_TOKENS = tuple(float(1 << power) for power in range(16))
_SAMPLES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """One metric as it is exposed."""

    name: str
    """Without the ``_total`` that the samples of a counter end with."""
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    """Beside `COMMON_LABELS`."""
    buckets: tuple[float, ...] = ()
    """Upper bounds, of a histogram."""

    @property
    def of_engine(self) -> bool:
        """Whether it is about the engine, and has `COMMON_LABELS`."""
        return not self.name.startswith("vcore:http_")


def _gauge(name: str, text: str, *labels: str) -> MetricDefinition:
    return MetricDefinition(f"vcore:{name}", "gauge", text, labels)


def _counter(name: str, text: str, *labels: str) -> MetricDefinition:
    return MetricDefinition(f"vcore:{name}", "counter", text, labels)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> MetricDefinition:
    return MetricDefinition(f"vcore:{name}", "histogram", text, labels, buckets)


METRICS: tuple[MetricDefinition, ...] = (
    _gauge("num_requests_running", "Requests in the running batch."),
    _gauge("num_requests_waiting", "Requests that wait to be admitted, preempted ones among them."),
    _gauge("kv_cache_usage_perc", "Part of the KV cache's blocks that requests use; 1 is all of them."),
    _gauge("kv_cache_cached_perc", "Part of the KV cache's blocks whose content can be hit; 1 is all of them."),
    _counter("prefix_cache_queries", "Prompt tokens that were looked up in the prefix cache."),
    _counter("prefix_cache_hits", "Prompt tokens that were found in the prefix cache."),
    _counter("num_preemptions", "Times that a running request had to give up its blocks."),
    _counter("prompt_tokens", "Prompt tokens that were computed; cached ones are not."),
    _counter("generation_tokens", "Tokens that were generated."),
    _counter("request_success", "Finished samples of requests, by reason.", "finished_reason"),
    _histogram("iteration_tokens_total", "Tokens computed in a step.", _STEP_TOKENS),
    _histogram("iteration_seconds", "Seconds from a step's launch until its tokens are known.", _TOKEN_SECONDS),
    _histogram("time_to_first_token_seconds", "Seconds from arrival to the first token.", _SECONDS),
    _histogram("inter_token_latency_seconds", "Seconds between consecutive tokens.", _TOKEN_SECONDS),
    _histogram("request_time_per_output_token_seconds", "Mean seconds between a request's tokens.", _TOKEN_SECONDS),
    _histogram("e2e_request_latency_seconds", "Seconds from arrival to the end.", _SECONDS),
    _histogram("request_queue_time_seconds", "Seconds from arrival to the first step.", _SECONDS),
    _histogram("request_prefill_time_seconds", "Seconds from the first step to the first token.", _SECONDS),
    _histogram("request_decode_time_seconds", "Seconds from the first token to the last.", _SECONDS),
    _histogram("request_inference_time_seconds", "Seconds from the first step to the last token.", _SECONDS),
    _histogram("request_prompt_tokens", "Prompt tokens of a request.", _TOKENS),
    _histogram("request_generation_tokens", "Tokens generated for a request, in all of its samples.", _TOKENS),
    _histogram("request_params_n", "Samples that a request asks for.", _SAMPLES),
    _histogram("request_params_max_tokens", "Most tokens that a request asks for, where it says.", _TOKENS),
    _gauge("engine_state", "1 for the state that the engine is in, 0 for the others.", "state"),
    _counter("engine_restarts", "Times that the engine process was started again."),
    _counter("engine_failed_steps", "Steps that raised, which ends the requests in them."),
    _gauge("engine_info", "1; what serves, in labels.", "version", "device", "dtype", "executor"),
    _gauge(
        "cache_config_info", "1; the shape of the KV cache, in labels.", "block_size", "num_blocks", "prefix_caching"
    ),
    _gauge(
        "plugin_info",
        "1 for each plugin that the engine is composed from.",
        "kind",
        "name",
        "distribution",
        "version",
    ),
    _counter("http_requests", "HTTP requests that were answered.", "method", "path", "status"),
    _gauge("http_requests_in_flight", "HTTP requests that are being answered."),
    _gauge("http_connections", "Connections of clients that are open."),
    _counter("http_connections_displaced", "Idle connections that were closed to make room for others."),
    _counter("http_connections_refused", "Connections for which there was no room."),
    _histogram(
        "http_request_duration_seconds", "Seconds from an HTTP request to the end of its answer.", _SECONDS, "path"
    ),
)
"""All metrics, in the order in which they are exposed."""
