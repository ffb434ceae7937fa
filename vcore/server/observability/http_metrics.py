"""`HttpMetrics`: counts of HTTP exchanges by route and status, and how long they took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcore.server.connection_limits import ConnectionLimits
from vcore.server.observability.definitions import METRICS
from vcore.server.observability.instruments import Histogram, LabelledCounter

if TYPE_CHECKING:
    from vcore.server.observability.http_watch import Exchange

__all__ = ["HttpMetrics"]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class HttpMetrics:
    """Label values are bounded: declared routes, known methods, statuses that were sent."""

    def __init__(self) -> None:
        [duration] = [one for one in METRICS if one.name == "vcore:http_request_duration_seconds"]
        self._buckets = duration.buckets
        self.requests = LabelledCounter()
        self.in_flight = 0
        self.connections = ConnectionLimits(0)
        """Those of the server that the application runs in; none before it is told."""
        self.durations: dict[str, Histogram] = {}

    def begin(self) -> None:
        """A request has come."""
        self.in_flight += 1

    def end(self, exchange: Exchange) -> None:
        """An exchange is over."""
        self.in_flight -= 1
        method = exchange.method if exchange.method in _METHODS else "other"
        self.requests.add((method, exchange.path, str(exchange.status)))
        if exchange.path not in self.durations:
            self.durations[exchange.path] = Histogram(self._buckets)
        self.durations[exchange.path].observe(exchange.seconds)
