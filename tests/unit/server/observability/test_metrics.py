"""From what the engine tells to what Prometheus reads."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from vcore.config import ServerSettings
from vcore.engine.records import EngineStatus
from vcore.errors import EngineError
from vcore.plugins.resolved import ResolvedPlugin, ResolvedSet
from vcore.server.connection_limits import ConnectionLimits
from vcore.server.observability.definitions import COMMON_LABELS, METRICS
from vcore.server.observability.engine_metrics import EngineMetrics
from vcore.server.observability.engine_watch import EngineWatch

ROOT = Path(__file__).resolve().parents[4]
PLUGIN = ResolvedPlugin(
    kind="eviction_policy", name="lru", distribution="their-plugins", version="1.2", origin="entry point"
)
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Values by name and labels, without the labels that all have."""
    return {
        (one.name, tuple(sorted((k, v) for k, v in one.labels.items() if k not in COMMON_LABELS))): one.value
        for family in parse_text(text)
        for one in family.samples
    }


def value(text: str, name: str, /, **labels: str) -> float:
    return samples(text)[(f"vcore:{name}", tuple(sorted(labels.items())))]


def tell(server: Any, method: str, record: object) -> None:
    for listener in server.engine.listeners:
        getattr(listener, method)(record)


def test_steps_are_counted(server: Any, make_step: Any, make_stats: Any) -> None:
    tell(server, "on_step", make_step(1))
    tell(server, "on_step", make_step(2, stats=make_stats(prefix_hit_tokens=70, preemptions=2)))
    tell(server, "on_step", make_step(0, num_prompt_tokens=0, num_decodes=0, num_output_tokens=0))
    server.engine.scheduler_stats = make_stats()
    text = server.get("/metrics").text
    assert value(text, "prompt_tokens_total") == 20
    assert value(text, "generation_tokens_total") == 8
    assert value(text, "prefix_cache_queries_total") == 100
    assert value(text, "num_preemptions_total") == 2
    assert value(text, "iteration_tokens_total_count") == 2
    assert value(text, "iteration_tokens_total_sum") == 26
    assert value(text, "iteration_tokens_total_bucket", le="8.0") == 0
    assert value(text, "iteration_tokens_total_bucket", le="16.0") == 2


def test_gauges_are_those_of_now(server: Any, make_stats: Any) -> None:
    server.engine.scheduler_stats = make_stats()
    text = server.get("/metrics").text
    assert value(text, "num_requests_running") == 2
    assert value(text, "num_requests_waiting") == 1
    assert value(text, "kv_cache_usage_perc") == 0.25
    assert value(text, "kv_cache_cached_perc") == 0.4
    assert value(text, "engine_state", state="ready") == 1
    assert value(text, "engine_state", state="dead") == 0


def test_requests_are_counted_with_their_times(server: Any, make_request: Any) -> None:
    tell(server, "on_finished", make_request(finish_reasons=("stop", "length")))
    text = server.get("/metrics").text
    assert value(text, "request_success_total", finished_reason="stop") == 1
    assert value(text, "request_success_total", finished_reason="length") == 1
    assert value(text, "request_success_total", finished_reason="abort") == 0
    sums = {
        "e2e_request_latency_seconds": 7,
        "request_queue_time_seconds": 1,
        "request_prefill_time_seconds": 2,
        "request_decode_time_seconds": 4,
        "request_inference_time_seconds": 6,
        "request_time_per_output_token_seconds": 2,
        "request_prompt_tokens": 12,
        "request_generation_tokens": 3,
        "request_params_n": 1,
        "request_params_max_tokens": 20,
    }
    assert {name: value(text, f"{name}_sum") for name in sums} == sums


def test_connections_are_those_of_the_server_around_it(server: Any) -> None:
    limits = server.app.state.observability.http.connections = ConnectionLimits(1)
    limits.num_displaced, limits.num_refused = 3, 4
    text = server.get("/metrics").text
    assert value(text, "http_connections") == 0
    assert value(text, "http_connections_displaced_total") == 3
    assert value(text, "http_connections_refused_total") == 4


def test_a_request_that_never_ran_has_only_the_times_that_it_reached(server: Any, make_request: Any) -> None:
    tell(server, "on_finished", make_request(times=(1.0, None, None, 3.0), finish_reasons=("abort",)))
    text = server.get("/metrics").text
    assert value(text, "request_success_total", finished_reason="abort") == 1
    assert value(text, "e2e_request_latency_seconds_sum") == 2
    for name in ("request_queue_time_seconds", "request_decode_time_seconds"):
        assert value(text, f"{name}_count") == 0


def test_tokens_are_counted_with_their_steps_and_not_again_at_the_end(
    server: Any, make_step: Any, make_request: Any
) -> None:
    tell(server, "on_step", make_step(1, first_token_latencies=[3.0]))
    tell(server, "on_step", make_step(2, inter_token_latencies=[0.25, 0.75]))
    for last in (False, True):
        text = server.get("/metrics").text
        assert value(text, "time_to_first_token_seconds_count") == 1
        assert value(text, "time_to_first_token_seconds_sum") == 3
        assert value(text, "inter_token_latency_seconds_count") == 2
        assert value(text, "inter_token_latency_seconds_sum") == 1
        assert last or tell(server, "on_finished", make_request()) is None


def test_counters_go_on_when_the_engine_begins_again(make_step: Any, make_stats: Any) -> None:
    metrics = EngineMetrics()
    metrics.on_step(make_step(stats=make_stats(prefix_hit_tokens=60)))
    metrics.on_engine(EngineStatus(state="restarting", restarts=1))
    metrics.on_engine(EngineStatus(state="ready", restarts=1, failed_steps=1))
    metrics.on_step(make_step(stats=make_stats(prefix_hit_tokens=90)))
    assert metrics.prefix_hits.value == 150
    assert metrics.restarts.value == 1
    assert metrics.failed_steps.value == 1


def test_what_serves_stands_in_labels(make_server: Any) -> None:
    server = make_server(model_names=("my-model",))
    server.engine.plugins = ResolvedSet((PLUGIN,))
    text = server.get("/metrics").text
    labels = {"kind": "eviction_policy", "name": "lru", "distribution": "their-plugins", "version": "1.2"}
    assert value(text, "plugin_info", **labels) == 1
    engine = [one for family in parse_text(text) if family.name.startswith("vcore:num") for one in family.samples]
    assert {one.labels["model_name"] for one in engine} == {"my-model"}
    assert set(COMMON_LABELS) <= set(engine[0].labels)


@pytest.mark.parametrize("state", ["starting", "restarting", "dead"])
def test_an_engine_that_does_not_run_can_be_scraped(server: Any, state: str) -> None:
    server.get("/metrics")
    server.engine.status.state = state
    response = server.get("/metrics")
    assert response.status_code == 200
    if state != "starting":
        assert value(response.text, "engine_state", state=state) == 1
        assert value(response.text, "num_requests_running") == 0


def test_an_engine_that_dies_while_it_is_asked_or_that_is_busy(
    server: Any, make_stats: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die() -> None:
        raise EngineError("gone")

    server.engine.stats = die
    assert value(server.get("/metrics").text, "kv_cache_usage_perc") == 0
    monkeypatch.setattr("vcore.server.observability.engine_watch._PATIENCE_S", 0.0)
    monkeypatch.setattr("vcore.server.observability.engine_watch._FRESH_S", -1.0)
    server.engine.stats = lambda: asyncio.Event().wait()
    server.engine.last_stats = make_stats
    assert value(server.get("/metrics").text, "kv_cache_usage_perc") == 0.25


def test_those_who_ask_at_once_share_an_answer(server: Any, make_stats: Any) -> None:
    asked, stats = [], make_stats()

    async def answer() -> Any:
        asked.append(1)
        await asyncio.sleep(0)
        return stats

    server.engine.stats = answer
    watch = EngineWatch(server.engine, ServerSettings())

    async def ask() -> list[Any]:
        return await asyncio.gather(*(watch.moment() for _ in range(5)))

    moments = asyncio.run(ask())
    assert [one.stats for one in moments] == [stats] * 5
    assert len(asked) == 1


def test_http_is_counted_by_route_and_status(server: Any) -> None:
    server.get("/v1/models")
    server.get("/v1/models/unknown-model")
    server.get("/somewhere/else?x=1")
    server.request("BREW", "/v1/models")
    text = server.get("/metrics").text
    assert value(text, "http_requests_total", method="GET", path="/v1/models", status="200") == 1
    assert value(text, "http_requests_total", method="GET", path="/v1/models/{model:path}", status="404") == 1
    assert value(text, "http_requests_total", method="GET", path="unmatched", status="404") == 1
    assert value(text, "http_requests_total", method="other", path="/v1/models", status="405") == 1
    assert "BREW" not in text
    assert value(text, "http_request_duration_seconds_count", path="/v1/models") >= 1
    assert value(text, "http_requests_in_flight") == 1, "the scrape itself"
    assert "somewhere" not in text


@pytest.mark.parametrize("headers", [{}, OPENMETRICS], ids=["any", "openmetrics"])
def test_every_metric_is_exposed_by_its_own_name(
    server: Any, make_step: Any, make_request: Any, headers: dict[str, str]
) -> None:
    server.engine.plugins = ResolvedSet((PLUGIN,))
    tell(server, "on_step", make_step())
    tell(server, "on_finished", make_request())
    server.get("/v1/models")
    response = server.get("/metrics", headers=headers)
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in parse_text(response.text)}
    for one in METRICS:
        family = families[one.name]
        assert family.type == one.kind
        assert family.samples
        expected = {*one.labels, *(COMMON_LABELS if one.of_engine else ())}
        assert {label for sample in family.samples for label in sample.labels} - {"le"} == expected
    assert "process_resident_memory_bytes" in families


def test_two_servers_do_not_mix(make_server: Any, make_step: Any) -> None:
    one, other = make_server(), make_server()
    tell(one, "on_step", make_step())
    assert value(one.get("/metrics").text, "prompt_tokens_total") == 10
    assert value(other.get("/metrics").text, "prompt_tokens_total") == 0


def test_the_documentation_has_every_metric() -> None:
    text = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if "`vcore:" in line]
    table = [tuple(row) for row in rows if len(row) == 4]
    assert table == [
        (f"`{one.name}`", one.kind, ", ".join(f"`{label}`" for label in one.labels) or "none", one.help)
        for one in METRICS
    ]
    assert all(f"`{label}`" in text for label in COMMON_LABELS)
