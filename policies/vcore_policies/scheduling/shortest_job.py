"""`ShortestJobPolicy`: the request with the least work first."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.interfaces.scheduling import RequestView, SchedulingContext, SchedulingPolicy
from vcore_policies.scheduling.length_predictor import LengthPredictor
from vcore_policies.scheduling.options import ShortestJobOptions

__all__ = ["ShortestJobPolicy"]


class ShortestJobPolicy(SchedulingPolicy):
    """Waiting requests by the work that they ask for, the least first; nobody is preempted for another.

        work = input_weight * prompt tokens + output_weight * tokens that it will generate

    which makes the mean time in the system least where the work is known (Smith, "Various Optimizers for Single-Stage
    Production", 1956). How many tokens it will generate the request says itself (`SamplingParams.expected_tokens`), or
    `LengthPredictor` does, once, when it begins to wait.

    Starvation bound: `patience` admissions in a row may pass over the request that arrived first.
    """

    def __init__(self, *, options: ShortestJobOptions | None, context: SchedulingContext) -> None:
        """See `ShortestJobOptions`."""
        options = options or ShortestJobOptions()
        self.patience = options.patience
        self._input_weight = options.input_weight
        self._output_weight = options.output_weight
        self._trusts = options.trust_requests
        self._predictor = LengthPredictor(options.initial_tokens, options.max_classes)

    def waiting_key(self, request: RequestView) -> float:
        """The work."""
        return self._input_weight * request.num_prompt_tokens + self._output_weight * self._expected_tokens(request)

    def on_finished(self, requests: Sequence[RequestView]) -> None:
        """Learn how long they were."""
        for request in requests:
            self._predictor.learn(request)

    def _expected_tokens(self, request: RequestView) -> float:
        if self._trusts and (expected := request.expected_tokens) is not None:
            return float(expected)
        return self._predictor.predict(request)
