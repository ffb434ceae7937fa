"""`MultilevelFeedbackPolicy`: requests sink from level to level as they are served."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from vcore.interfaces.scheduling import RequestView, SchedulingContext, SchedulingPolicy
from vcore_policies.scheduling.options import MultilevelFeedbackOptions

__all__ = ["MultilevelFeedbackPolicy"]


class MultilevelFeedbackPolicy(SchedulingPolicy):
    """The least served first, without knowing how long anything will be.

        service = input_weight * prompt tokens + output_weight * generated tokens

    A request is at the first level until its service exceeds `quantum`, at the next until it exceeds
    ``quantum * (1 + growth)``, and so on; better levels go first, within a level the earlier arrival does. The prompt
    counts from the start, so a long one joins at the level that its first token will take it to anyway: the skip-join
    queue of Wu et al., "Fast Distributed Inference Serving for Large Language Models" (FastServe), 2023; the feedback
    queue is that of Corbato et al., "An Experimental Time-Sharing System", 1962.

    A waiting request displaces one that has sunk deeper, if that was not preempted too often.

    Starvation bound: `patience` admissions in a row may pass over the request that arrived first; a request that was
    preempted more than `max_displacements` times makes room for nobody, and when blocks run out it is spared while
    there are others.
    """

    def __init__(self, *, options: MultilevelFeedbackOptions | None, context: SchedulingContext) -> None:
        """See `MultilevelFeedbackOptions`."""
        options = options or MultilevelFeedbackOptions()
        self.patience = options.patience
        self._input_weight = options.input_weight
        self._output_weight = options.output_weight
        self._max_displacements = options.max_displacements
        quanta = [options.quantum * options.growth**level for level in range(options.num_levels - 1)]
        self._ends = [sum(quanta[: level + 1]) for level in range(len(quanta))]
        """Service up to which a request stays at each level but the last."""

    def waiting_key(self, request: RequestView) -> int:
        """The level, which does not change while it waits."""
        return self._level(request)

    def order_running(self, running: Sequence[RequestView], now: float) -> list[int]:
        """Those that generate take from the budget first, as a token costs little; then the best level does."""
        keys = [(not one.num_output_tokens, self._level(one), one.arrival_index) for one in running]
        return sorted(range(len(running)), key=keys.__getitem__)

    def pick_victim(self, running: Sequence[RequestView]) -> int:
        """The deepest of those that may be displaced; of those, and if nobody may, the latest to arrive."""
        # One loop with as little in it as may be: it is asked of all that run in most steps.
        ends, inputs, outputs = self._ends, self._input_weight, self._output_weight
        levels = [
            bisect_left(ends, inputs * request.num_prompt_tokens + outputs * request.num_output_tokens)
            for request in running
        ]
        allowed = [index for index, request in enumerate(running) if self._may_go(request)]
        if not allowed:
            return super().pick_victim(running)
        deepest = max(levels[index] for index in allowed)
        return max((index for index in allowed if levels[index] == deepest), key=lambda i: running[i].arrival_index)

    def should_displace(self, waiting: RequestView, victim: RequestView) -> bool:
        """Only one that has sunk deeper."""
        return self._may_go(victim) and self._level(waiting) < self._level(victim)

    def _may_go(self, request: RequestView) -> bool:
        return request.num_preemptions <= self._max_displacements

    def _level(self, request: RequestView) -> int:
        service = self._input_weight * request.num_prompt_tokens + self._output_weight * request.num_output_tokens
        return bisect_left(self._ends, service)
