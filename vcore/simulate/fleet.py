"""`Fleet`: replicas behind a routing policy, fed with the requests of a trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vcore.engine.request import EngineRequest
from vcore.simulate.checked_routing import CheckedRouting
from vcore.simulate.replica import Replica
from vcore.simulate.request_maker import RequestMaker
from vcore.simulate.routing_views import SimulatedArrival, SimulatedReplica
from vcore.traces import Trace

__all__ = ["Fleet"]

_REPORTED = 256
"""Requests between two reports."""


class Fleet:
    """Sends each request when it arrives, and never again: no request moves."""

    def __init__(self, replicas: Sequence[Replica], routing: CheckedRouting | None) -> None:
        """Args:
        replicas: idle.
        routing: chooses among them; None where there is but one.
        """
        self._replicas = replicas
        self._routing = routing
        self._views = tuple(SimulatedReplica(replica) for replica in replicas)

    def serve(self, trace: Trace, make: RequestMaker, report: Callable[[int], None] | None = None) -> None:
        """Serve all requests of a trace to their ends.

        Args:
            trace: by arrival.
            make: the engine's requests of the trace's.
            report: told of the number of requests that were sent, now and then.

        Raises:
            PolicyError: a policy failed, in strict mode.
        """
        for index, one in enumerate(trace.requests):
            request = make(index, one)
            chosen = self._choose(request)
            chosen.run(one.arrival_s)
            chosen.submit(request)
            if report is not None and index % _REPORTED == _REPORTED - 1:
                report(index + 1)
        for replica in self._replicas:
            replica.run()

    def _choose(self, request: EngineRequest) -> Replica:
        routing = self._routing
        if routing is None:
            return self._replicas[0]
        if routing.looks_at_replicas:
            for replica in self._replicas:
                replica.run(request.arrival_time)
        return self._replicas[routing.choose(SimulatedArrival(request), self._views)]
