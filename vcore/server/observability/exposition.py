"""From counts to Prometheus' text: one collector for the engine and one for HTTP, in a registry of this app's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from vcore.engine.records import EngineState
from vcore.server.observability.definitions import COMMON_LABELS, METRICS, MetricDefinition
from vcore.server.observability.instruments import Counter, FollowedCounter, Histogram

if TYPE_CHECKING:
    from vcore.server.observability.composition import Composition
    from vcore.server.observability.engine_metrics import EngineMetrics
    from vcore.server.observability.engine_watch import EngineMoment
    from vcore.server.observability.http_metrics import HttpMetrics

__all__ = ["ENGINE_STATES", "EngineCollector", "HttpCollector"]

ENGINE_STATES: tuple[str, ...] = get_args(EngineState)

Values = Sequence[tuple[tuple[str, ...], float | Histogram]]
"""Label values, beside the common ones, and what was counted under them."""


class EngineCollector(Collector):
    """The engine's metrics."""

    def __init__(self, metrics: EngineMetrics, moment: Callable[[], EngineMoment | None]) -> None:
        self._metrics = metrics
        self._moment = moment

    def describe(self) -> Iterator[Metric]:
        """The names alone, so that registering asks the engine nothing."""
        yield from (_family(one) for one in METRICS if one.of_engine)

    def collect(self) -> Iterator[Metric]:
        """Every metric with the values of now; none before the engine was composed, since its labels are unknown."""
        moment = self._moment()
        if moment is None or moment.composition is None:
            return
        values = self._counted() | _of_moment(moment, moment.composition)
        for one in METRICS:
            if one.of_engine:
                yield _family(one, values[one.name.removeprefix("vcore:")], moment.composition.common_labels)

    def _counted(self) -> dict[str, Values]:
        metrics = self._metrics
        totals: dict[str, Counter | FollowedCounter] = {
            "prefix_cache_queries": metrics.prefix_queries,
            "prefix_cache_hits": metrics.prefix_hits,
            "num_preemptions": metrics.preemptions,
            "prompt_tokens": metrics.prompt_tokens,
            "generation_tokens": metrics.generation_tokens,
            "engine_restarts": metrics.restarts,
            "engine_failed_steps": metrics.failed_steps,
        }
        counted: dict[str, Values] = {name: [((), total.value)] for name, total in totals.items()}
        counted |= {name: [((), histogram)] for name, histogram in metrics.histograms.items()}
        counted["request_success"] = list(metrics.finished.values.items())
        return counted


class HttpCollector(Collector):
    """The metrics of HTTP."""

    def __init__(self, metrics: HttpMetrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterator[Metric]:
        """The names alone."""
        yield from (_family(one) for one in METRICS if not one.of_engine)

    def collect(self) -> Iterator[Metric]:
        """Every metric with the values of now."""
        metrics = self._metrics
        values: dict[str, Values] = {
            "http_requests": list(metrics.requests.values.items()),
            "http_requests_in_flight": [((), metrics.in_flight)],
            "http_connections": [((), metrics.connections.num_open)],
            "http_connections_displaced": [((), metrics.connections.num_displaced)],
            "http_connections_refused": [((), metrics.connections.num_refused)],
            "http_request_duration_seconds": [((path,), one) for path, one in metrics.durations.items()],
        }
        for one in METRICS:
            if not one.of_engine:
                yield _family(one, values[one.name.removeprefix("vcore:")])


def _of_moment(moment: EngineMoment, composition: Composition) -> dict[str, Values]:
    stats, of = moment.stats, composition
    blocks = 0 if stats is None else stats.used_blocks + stats.free_blocks
    return {
        "num_requests_running": [((), 0 if stats is None else stats.running)],
        "num_requests_waiting": [((), 0 if stats is None else stats.waiting)],
        "kv_cache_usage_perc": [((), stats.used_blocks / blocks if stats is not None and blocks else 0.0)],
        "kv_cache_cached_perc": [((), stats.cached_blocks / blocks if stats is not None and blocks else 0.0)],
        "engine_state": [((state,), float(moment.status.state == state)) for state in ENGINE_STATES],
        "engine_info": [((of.version, of.device, of.dtype, of.executor), 1.0)],
        "cache_config_info": [((of.block_size, of.num_blocks, str(of.prefix_caching).lower()), 1.0)],
        "plugin_info": [
            ((one.kind, one.name, one.distribution, one.version or ""), 1.0)
            for one in {(one.kind, one.name, one.distribution): one for one in of.plugins}.values()
        ],
    }


def _family(one: MetricDefinition, values: Values = (), common: tuple[str, ...] = ()) -> Metric:
    labels = [*(COMMON_LABELS if one.of_engine else ()), *one.labels]
    if one.kind == "histogram":
        histogram = HistogramMetricFamily(one.name, one.help, labels=labels)
        for own, value in values:
            assert isinstance(value, Histogram)
            histogram.add_metric([*common, *own], value.cumulative(), value.sum)
        return histogram
    family = (CounterMetricFamily if one.kind == "counter" else GaugeMetricFamily)(one.name, one.help, labels=labels)
    for own, value in values:
        assert not isinstance(value, Histogram)
        family.add_metric([*common, *own], value)
    return family
