"""`ShortestRemainingPolicy`: the request that has least left to do first, waiting or running."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.interfaces.scheduling import RequestView, SchedulingContext
from vcore_policies.scheduling.options import ShortestRemainingOptions
from vcore_policies.scheduling.shortest_job import ShortestJobPolicy

__all__ = ["ShortestRemainingPolicy"]

_LONG = 4.0
"""At least this part (1 in so many) of what a request has generated is taken to be still to come, however little its
prediction leaves, or if it has outlived it."""


class ShortestRemainingPolicy(ShortestJobPolicy):
    """As `ShortestJobPolicy`, by what is left to do, and with preemption.

        left = input_weight * tokens to compute + output_weight * tokens to generate

    Shortest remaining processing time is best for the mean time in the system (Schrage, "A Proof of the Optimality of
    the Shortest Remaining Processing Time Discipline", 1968) if preemption costs nothing. Here it costs computing again
    what is not in the cache any more, so a running request makes room for a waiting one only if it has `displace_ratio`
    times as much left, and only so often.

    Starvation bound: `patience` admissions in a row may pass over the request that arrived first; a request that was
    preempted more than `max_displacements` times makes room for nobody, and when blocks run out it is spared while
    there are others.
    """

    def __init__(self, *, options: ShortestRemainingOptions | None, context: SchedulingContext) -> None:
        """See `ShortestRemainingOptions`."""
        options = options or ShortestRemainingOptions()
        super().__init__(options=options, context=context)
        self._ratio = options.displace_ratio
        self._max_displacements = options.max_displacements
        self._expected: dict[int, float] = {}
        """By arrival, of those that run: what was predicted when they began."""

    def waiting_key(self, request: RequestView) -> float:
        """What is left, all of its tokens to be computed."""
        return self._left(request)

    def order_running(self, running: Sequence[RequestView], now: float) -> list[int]:
        """Who has least left takes from the budget first."""
        left = self._left_of_all(running)
        return sorted(range(len(running)), key=left.__getitem__)

    def pick_victim(self, running: Sequence[RequestView]) -> int:
        """Who has most left of those that may be displaced; if nobody may, the latest to arrive."""
        left = self._left_of_all(running)
        # Of equals the one that was admitted last.
        index = max(reversed(range(len(left))), key=left.__getitem__)
        if self._may_go(running[index]):
            return index
        allowed = [index for index, request in enumerate(running) if self._may_go(request)]
        return max(reversed(allowed), key=left.__getitem__) if allowed else super().pick_victim(running)

    def should_displace(self, waiting: RequestView, victim: RequestView) -> bool:
        """Whether that saves enough."""
        if self._ratio is None or not self._may_go(victim):
            return False
        return self._ratio * self._left(waiting) <= self._left_of_all([victim])[0]

    def on_admitted(self, requests: Sequence[RequestView]) -> None:
        """Keep what is expected of them, so that asking for their rest is cheap."""
        for request in requests:
            self._expected.setdefault(request.arrival_index, self._expected_tokens(request))

    def on_finished(self, requests: Sequence[RequestView]) -> None:
        """Learn how long they were."""
        super().on_finished(requests)
        for request in requests:
            self._expected.pop(request.arrival_index, None)

    def _may_go(self, request: RequestView) -> bool:
        return request.num_preemptions <= self._max_displacements

    def _left(self, request: RequestView) -> float:
        """Of one that waits, and has all of its tokens to compute."""
        expected = self._expected_of(request)
        outputs = _outputs_left(expected, request.num_output_tokens)
        return self._input_weight * request.num_tokens + self._output_weight * outputs

    def _left_of_all(self, running: Sequence[RequestView]) -> list[float]:
        """Of those that run. One loop with as little in it as may be: it is asked of all in most steps."""
        left: list[float] = []
        known, weight = self._expected, self._output_weight
        for request in running:
            generated = request.num_output_tokens
            expected = known.get(request.arrival_index) or self._expected_of(request)
            outputs = expected - generated
            if outputs < 1.0 or generated > _LONG * outputs:
                outputs = _outputs_left(expected, generated)
            if generated:
                left.append(weight * outputs)
            else:
                inputs = max(0, request.num_tokens - request.num_computed_tokens)
                left.append(weight * outputs + self._input_weight * inputs)
        return left

    def _expected_of(self, request: RequestView) -> float:
        return self._expected.get(request.arrival_index) or self._expected_tokens(request)


def _outputs_left(expected: float, generated: int) -> float:
    return max(expected - generated, generated / _LONG, 1.0)
