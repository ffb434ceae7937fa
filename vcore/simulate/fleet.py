"""`Fleet`: replicas behind a router, fed with the requests of a trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vcore.simulate.replica import Replica
from vcore.simulate.request_maker import RequestMaker
from vcore.simulate.routing import Router
from vcore.simulate.virtual_prompt import VirtualPrompt
from vcore.traces import Trace

__all__ = ["Fleet"]

_REPORTED = 256
"""Requests between two reports."""


@dataclass(frozen=True, slots=True)
class _View:
    """A replica as a router sees it."""

    replica: Replica

    @property
    def num_unfinished(self) -> int:
        return self.replica.num_unfinished

    def num_cached_tokens(self, prompt: VirtualPrompt) -> int:
        return self.replica.scheduler.num_cached_tokens(prompt)


class Fleet:
    """Sends each request when it arrives, and never again: no request moves."""

    def __init__(self, replicas: Sequence[Replica], router: Router) -> None:
        """Args:
        replicas: idle.
        router: chooses among them.
        """
        self._replicas = replicas
        self._router = router
        self._views = [_View(replica) for replica in replicas]

    def serve(self, trace: Trace, make: RequestMaker, report: Callable[[int], None] | None = None) -> None:
        """Serve all requests of a trace to their ends.

        Args:
            trace: by arrival.
            make: the engine's requests of the trace's.
            report: told of the number of requests that were sent, now and then.
        """
        for index, one in enumerate(trace.requests):
            request = make(index, one)
            if self._router.looks:
                for replica in self._replicas:
                    replica.run(one.arrival_s)
            assert isinstance(request.prompt_token_ids, VirtualPrompt)
            chosen = self._replicas[self._router.choose(request.prompt_token_ids, self._views)]
            chosen.run(one.arrival_s)
            chosen.submit(request)
            if report is not None and index % _REPORTED == _REPORTED - 1:
                report(index + 1)
        for replica in self._replicas:
            replica.run()
