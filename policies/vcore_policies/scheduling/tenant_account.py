"""`TenantAccount`: what a tenant was served, and its requests that wait."""

from __future__ import annotations

from vcore.interfaces.scheduling import RequestView
from vcore_policies.scheduling.request_heap import RequestHeap

__all__ = ["TenantAccount"]


class TenantAccount:
    """One tenant of `FairSharePolicy`."""

    __slots__ = ("_charged", "_settled", "_weight", "counter", "entry", "queue", "tenant")

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
        self._charged: dict[int, tuple[RequestView, int]] = {}
        """By arrival, those that were admitted and have not ended, each with its tokens that are charged."""
        self._settled = 0

    @property
    def is_idle(self) -> bool:
        """Whether it has no request."""
        return not self._charged and not len(self.queue)

    def charge_inputs(self, request: RequestView, input_weight: float) -> None:
        """The request is admitted for the first time."""
        self._charged[request.arrival_index] = (request, 0)
        self.counter += input_weight * request.num_prompt_tokens / self._weight

    def charge_outputs(self, output_weight: float, now: int) -> None:
        """Charge what its requests generated since the last time; nothing if that was at the same `now`."""
        if self._settled == now:
            return
        self._settled = now
        news = 0
        for arrival, (request, charged) in self._charged.items():
            generated = request.num_output_tokens
            if generated > charged:
                news += generated - charged
                self._charged[arrival] = (request, generated)
        self.counter += output_weight * news / self._weight

    def end(self, request: RequestView, output_weight: float) -> None:
        """The request ended; what is left of it is charged, if it was ever admitted."""
        _, charged = self._charged.pop(request.arrival_index, (request, -1))
        if charged >= 0:
            self.counter += output_weight * max(0, request.num_output_tokens - charged) / self._weight

    def was_admitted(self, request: RequestView) -> bool:
        """Whether the request, which has not ended, ran before."""
        return request.arrival_index in self._charged
