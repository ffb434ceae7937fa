"""`StarvationWatch`: holds a scheduling policy to the bounds that it states, step by step."""

from __future__ import annotations

from vcore.interfaces.step import SchedulerOutput
from vcore.scheduler.request import Request
from vcore.testing.simulated_engine import SimulatedEngine

__all__ = ["StarvationWatch"]


class StarvationWatch:
    """Looks at each admission of an engine: `SchedulingPolicy.patience` and `SchedulingPolicy.max_overtaking_s`."""

    def __init__(self, engine: SimulatedEngine) -> None:
        """Watch `engine`, which is stepped by `step` from now on."""
        self._engine = engine
        self._waiting = engine.scheduler._lifecycle.waiting
        self._num_passes = 0
        self._skipped: set[int] = set()
        """Who is passed in a step because another computes its next block, which no bound speaks of."""
        skip = self._waiting.skip

        def noted() -> None:
            assert self._waiting._head is not None
            self._skipped.add(self._waiting._head.arrival_index)
            skip()

        self._waiting.skip = noted  # type: ignore[method-assign]  # of this one queue

    def step(self) -> None:
        """Step the engine.

        Raises:
            AssertionError: a request was passed over more often, or by a later one, than the policy states.
        """
        waiting = dict(self._waiting._members)
        self._skipped.clear()
        num_launched = len(self._engine.schedules)
        self._engine.step()
        for output in self._engine.schedules[num_launched:]:
            self._check(waiting, output)

    def _check(self, waiting: dict[int, Request], output: SchedulerOutput) -> None:
        """Every admission of a step, in order, among those who waited when it was planned."""
        policy = self._engine.policy
        arrivals = {request.request_id: arrival for arrival, request in waiting.items()}
        for new in output.new_rows:
            arrival, first = arrivals[new.request_id], min(waiting)
            self._check_overtaking(waiting, waiting[arrival])
            if arrival == first:
                self._num_passes = 0
            elif first not in self._skipped:
                self._num_passes += 1
            if policy.patience is not None:
                assert self._num_passes <= policy.patience, f"{waiting[first]} was passed too often"
            del waiting[arrival]

    def _check_overtaking(self, waiting: dict[int, Request], admitted: Request) -> None:
        most = self._engine.policy.max_overtaking_s
        others = [request.engine.arrival_time for arrival, request in waiting.items() if arrival not in self._skipped]
        if most is not None and others:
            earlier_s = admitted.engine.arrival_time - min(others)
            assert earlier_s <= most, f"{admitted} ran before one that arrived {earlier_s} s earlier"
