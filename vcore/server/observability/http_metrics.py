"""`HttpMetrics`: an ASGI middleware that counts requests by route and status, and how long they took."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from vcore.server.observability.definitions import METRICS
from vcore.server.observability.instruments import Histogram, LabelledCounter

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HttpCounts", "HttpMetrics", "route_path"]

_UNMATCHED = "unmatched"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLIENT_GONE = "499"
"""The status of an exchange whose client left before there was one."""


class HttpCounts:
    """What `HttpMetrics` has counted. Label values are bounded: routes, known methods, statuses that were sent."""

    def __init__(self) -> None:
        [duration] = [one for one in METRICS if one.name == "vcore:http_request_duration_seconds"]
        self._buckets = duration.buckets
        self.requests = LabelledCounter()
        self.in_flight = 0
        self.durations: dict[str, Histogram] = {}

    def add(self, method: str, path: str, status: str, seconds: float) -> None:
        """Count an exchange that is over."""
        self.requests.add((method if method in _METHODS else "other", path, status))
        if path not in self.durations:
            self.durations[path] = Histogram(self._buckets)
        self.durations[path].observe(seconds)


class HttpMetrics:
    """Passes everything through, and counts it when its answer has ended."""

    def __init__(self, app: ASGIApp, counts: HttpCounts) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = _CLIENT_GONE

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        self._counts.in_flight += 1
        start = time.monotonic()
        try:
            await self._app(scope, receive, note_status)
        except Exception:
            status = "500" if status == _CLIENT_GONE else status
            raise
        finally:
            self._counts.in_flight -= 1
            self._counts.add(scope["method"], route_path(scope), status, time.monotonic() - start)


def route_path(scope: dict[str, Any] | Scope) -> str:
    """The route that served, as it was declared: never what a client wrote, which would be unbounded."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else _UNMATCHED
