"""What is told of HTTP exchanges, also of those that go wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from vcore.server.observability.http_metrics import HttpMetrics
from vcore.server.observability.http_watch import CLIENT_GONE, Exchange, HttpWatch
from vcore.server.observability.request_notes import UNMATCHED


def watch(app: Any) -> tuple[HttpWatch, list[Exchange]]:
    told: list[Exchange] = []
    return HttpWatch(app, begin=lambda: None, end=[told.append]), told


def serve(watched: HttpWatch, kind: str = "http") -> None:
    async def receive() -> Any:
        raise AssertionError("nobody reads")

    async def send(message: Any) -> None:
        pass

    scope = {"type": kind, "method": "GET", "path": "/secret", "headers": []}
    asyncio.run(watched(scope, receive, send))


def test_an_app_that_raises_is_a_500_and_still_raises() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("broken")

    watched, told = watch(app)
    with pytest.raises(RuntimeError, match="broken"):
        serve(watched)
    assert [(one.status, one.path, one.request_id) for one in told] == [(500, UNMATCHED, None)]


def test_a_status_that_was_sent_stays_what_it_is() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Request-Id", b"abc")]})
        raise RuntimeError("broken in the middle")

    watched, told = watch(app)
    with pytest.raises(RuntimeError):
        serve(watched)
    assert [(one.status, one.request_id) for one in told] == [(200, "abc")]


def test_a_client_that_left_before_the_answer() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    watched, told = watch(app)
    with pytest.raises(asyncio.CancelledError):
        serve(watched)
    assert [one.status for one in told] == [CLIENT_GONE]


def test_other_protocols_pass_unwatched() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    watched, told = watch(app)
    serve(watched, "websocket")
    assert seen == ["websocket"]
    assert told == []


def test_what_is_under_way_is_counted() -> None:
    metrics = HttpMetrics()
    metrics.begin()
    metrics.begin()
    metrics.end(Exchange("GET", "/", 200, 0.5, None))
    assert metrics.in_flight == 1
    assert metrics.requests.values == {("GET", "/", "200"): 1}
    assert metrics.durations["/"].sum == 0.5
