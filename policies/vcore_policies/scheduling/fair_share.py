"""`FairSharePolicy`: tenants share what is served, whoever asks for more."""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator, Sequence

from vcore.interfaces.scheduling import QueueingPolicy, RequestView, SchedulingContext
from vcore_policies.scheduling.options import FairShareOptions
from vcore_policies.scheduling.tenant_account import TenantAccount

__all__ = ["FairSharePolicy"]

_Entry = tuple[float, int, TenantAccount]  # counter when it was made, serial number


class FairSharePolicy(QueueingPolicy):
    """The tenant that was served least first; its requests by arrival.

    The virtual token counter of Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024, algorithm 2. Each
    tenant has a counter of what it was served, divided by its weight:

        + input_weight * prompt tokens       when a request is admitted for the first time
        + output_weight * generated tokens   as they come

    and the tenant with the least counter is next. One that begins to wait is lifted to the least counter of those that
    wait, so that idleness earns nothing; if nobody waits, to that of the tenant that waited last. Work-conserving:
    no capacity is held back. Requests without a tenant share one account.

    Fairness bound (theirs for backlogged clients): while two tenants of weight 1 both have requests waiting, what they
    are served differs by at most ``2 * max(input_weight * longest prompt, output_weight * most tokens that run)``.
    Starvation bound beside that: `patience` admissions in a row may pass over the request that arrived first, so that
    tenants that are made up one after another do not get past everybody. Such a turn is charged like any other.

    When blocks run out, the latest request of the tenant that was served most is preempted; one that was preempted once
    is spared while there are others. Nobody is preempted for another.
    """

    def __init__(self, *, options: FairShareOptions | None, context: SchedulingContext) -> None:
        """See `FairShareOptions`."""
        options = options or FairShareOptions()
        self.patience = options.patience
        self._input_weight = options.input_weight
        self._output_weight = options.output_weight
        self._weights = dict(options.weights)
        self._max_tenants = options.max_tenants
        self._accounts: dict[str | None, TenantAccount] = {}
        self._heap: list[_Entry] = []
        """One entry that counts for each tenant that waits; a counter may have grown since."""
        self._serial = 0
        self._now = 0
        """Counts the moments at which counters are looked at; they are brought up to date only then."""
        self._level = 0.0
        """Where the last one joined those that wait."""
        self._waited_last: TenantAccount | None = None
        self._purge_at = self._purge_least = 2 * options.max_tenants + 64
        """How many accounts are too many."""

    def on_waiting(self, request: RequestView) -> None:
        """Its tenant joins those that wait."""
        account = self._account(request)
        if not len(account.queue):
            self._raise_level()
            # One that is preempted did not go idle.
            account.charge_outputs(self._output_weight, self._now)
            if request.num_preemptions == 0:
                account.counter = max(account.counter, self._level)
        account.queue.push(0, request)
        if account.entry is None:
            self._enter(account)

    def on_left(self, request: RequestView) -> None:
        """Its tenant may wait no more."""
        account = self._account(request)
        account.queue.discard(request)
        if not len(account.queue):
            self._waited_last = account
            if len(self._accounts) > self._purge_at:
                self._forget_idle()

    def walk(self, now: float) -> Iterator[RequestView]:
        """The first of the tenant with the least counter, time and again."""
        self._now += 1
        walks: dict[str | None, Generator[RequestView]] = {}
        exhausted: list[TenantAccount] = []
        try:
            while (least := self._least()) is not None:
                walk = walks.get(least.tenant)
                if walk is None:
                    walk = walks[least.tenant] = least.queue.walk()
                first = next(walk, None)
                if first is None:
                    least.entry = None
                    exhausted.append(least)
                    continue
                yield first
                if first not in least.queue:
                    self._charge_inputs(first, least)
        finally:
            for walk in walks.values():
                walk.close()
            for account in exhausted:
                if len(account.queue) and account.entry is None:
                    self._enter(account)

    def order_running(self, running: Sequence[RequestView], now: float) -> list[int]:
        """The tenant that was served least takes from the budget first."""
        self._now += 1
        keys = [(self._counter(request), request.arrival_index) for request in running]
        return sorted(range(len(running)), key=keys.__getitem__)

    def pick_victim(self, running: Sequence[RequestView]) -> int:
        """The latest of the tenant that was served most."""
        self._now += 1
        fresh = [index for index, request in enumerate(running) if not request.num_preemptions]
        if not fresh:
            return super().pick_victim(running)
        return max(fresh, key=lambda index: (self._counter(running[index]), running[index].arrival_index))

    def on_admitted(self, requests: Sequence[RequestView]) -> None:
        """Charge those that no walk has charged, as it ended with them or it was their turn."""
        for request in requests:
            self._charge_inputs(request, self._account(request))

    def on_finished(self, requests: Sequence[RequestView]) -> None:
        """Charge the rest."""
        for request in requests:
            account = self._accounts.get(request.tenant)
            if account is not None:
                account.end(request, self._output_weight)

    def _account(self, request: RequestView) -> TenantAccount:
        tenant = request.tenant
        account = self._accounts.get(tenant)
        if account is None:
            weight = 1.0 if tenant is None else self._weights.get(tenant, 1.0)
            account = self._accounts[tenant] = TenantAccount(tenant, weight)
        return account

    def _counter(self, request: RequestView) -> float:
        account = self._account(request)
        account.charge_outputs(self._output_weight, self._now)
        return account.counter

    def _charge_inputs(self, request: RequestView, account: TenantAccount) -> None:
        if not account.was_admitted(request):
            account.charge_inputs(request, self._input_weight)

    def _enter(self, account: TenantAccount) -> None:
        self._serial += 1
        account.entry = (account.counter, self._serial)
        heapq.heappush(self._heap, (account.counter, self._serial, account))

    def _least(self) -> TenantAccount | None:
        """The waiting tenant with the least counter, beside those that a walk has exhausted."""
        while self._heap:
            counter, serial, account = self._heap[0]
            # Counters only grow, so whoever is first with the one at hand, and still after this, has the least.
            account.charge_outputs(self._output_weight, self._now)
            if account.entry == (counter, serial) and len(account.queue) and counter >= account.counter:
                return account
            heapq.heappop(self._heap)
            if account.entry == (counter, serial):
                account.entry = None
                if len(account.queue):
                    self._enter(account)
        return None

    def _raise_level(self) -> None:
        """A tenant joins: at the least counter of those that wait, or at that of the one that waited last."""
        self._now += 1
        joins = self._least() or self._waited_last
        if joins is not None:
            joins.charge_outputs(self._output_weight, self._now)
            self._level = max(self._level, joins.counter)

    def _forget_idle(self) -> None:
        """Forget tenants that would be lifted anyway; beyond `max_tenants`, those with the least counters."""
        idle = sorted((one for one in self._accounts.values() if one.is_idle), key=lambda one: one.counter)
        surplus = len(idle) - self._max_tenants
        for index, account in enumerate(idle):
            if index < surplus or account.counter <= self._level:
                del self._accounts[account.tenant]
        self._purge_at = max(self._purge_least, 2 * len(self._accounts))
