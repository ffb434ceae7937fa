"""`TenantAccount`: what a tenant was served, and its requests that wait."""

from __future__ import annotations

from vcore.interfaces.scheduling import RequestView
from vcore_policies.scheduling.request_heap import RequestHeap

__all__ = ["TenantAccount"]


class TenantAccount:
    """One tenant of `FairSharePolicy`."""

    __slots__ = ("_charged", "_weight", "counter", "entry", "queue", "tenant")

    def __init__(self, tenant: str | None, weight: float) -> None:
        """An account at 0.

        Args:
            tenant: whose; None for requests that name none.
            weight: its share; service counts divided by that.
        """
        self.tenant = tenant
        self._weight = weight
        self.counter = 0.0
        """Service so far."""
        self.queue = RequestHeap()
        """Its waiting requests, by arrival."""
        self.entry: tuple[float, int] | None = None
        """Its entry among the waiting tenants that counts, by counter and serial number."""
        self._charged: dict[int, int] = {}
        """By arrival, tokens charged of those that were admitted and have not ended."""

    @property
    def is_idle(self) -> bool:
        """Whether it has no request."""
        return not self._charged and not len(self.queue)

    def charge_inputs(self, request: RequestView, input_weight: float) -> None:
        """The request is admitted for the first time."""
        self._charged[request.arrival_index] = 0
        self.counter += input_weight * request.num_prompt_tokens / self._weight

    def charge_outputs(self, request: RequestView, output_weight: float) -> None:
        """Charge what the request generated since the last time."""
        generated = request.num_output_tokens
        news = generated - self._charged[request.arrival_index]
        if news > 0:
            self._charged[request.arrival_index] = generated
            self.counter += output_weight * news / self._weight

    def end(self, request: RequestView) -> None:
        """The request ended."""
        self._charged.pop(request.arrival_index, None)
