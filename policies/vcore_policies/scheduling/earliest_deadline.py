"""`EarliestDeadlinePolicy`: the request whose next token is due first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from vcore.interfaces.scheduling import QueueingPolicy, RequestView, SchedulingContext
from vcore_policies.scheduling.options import EarliestDeadlineOptions
from vcore_policies.scheduling.prefill_rate import PrefillRate
from vcore_policies.scheduling.request_heap import RequestHeap

__all__ = ["EarliestDeadlinePolicy"]


class EarliestDeadlinePolicy(QueueingPolicy):
    """Requests by when their next token is due:

        due = arrival + ttft_target_s + generated tokens * itl_target_s

    Earliest deadline first meets all deadlines if any order does (Liu and Layland, "Scheduling Algorithms for
    Multiprogramming in a Hard-Real-Time Environment", 1973), and under overload meets hardly any, as it serves those
    that are about to be late. So a request that waits for its first token and can not have it in time any more gives
    way to all that can (compare Haritsa et al., "Earliest Deadline Scheduling for Real-Time Database Systems", 1991);
    among themselves the late go by arrival. What its prompt will take is judged by `PrefillRate`.

    Among running requests a token of one that generates costs little and goes before any prompt. So that prompts do not
    hold generation up, those of one step take at most `prefill_share` of the least ITL target of those that run.

    When blocks run out, the latest to arrive is preempted. Nobody is preempted for another.

    Starvation bound: `patience` admissions in a row may pass over the request that arrived first.
    """

    def __init__(self, *, options: EarliestDeadlineOptions | None, context: SchedulingContext) -> None:
        """See `EarliestDeadlineOptions`."""
        options = options or EarliestDeadlineOptions()
        self.patience = options.patience
        self._ttft_s = options.ttft_target_s
        self._itl_s = options.itl_target_s
        self._defers = options.defer_late
        self._rate = PrefillRate(context.max_num_batched_tokens, options.prefill_tokens_per_s)
        self._share = options.prefill_share or 0.0
        self._limits_prefill = options.prefill_share is not None and context.chunked_prefill
        self._most_cap = context.max_num_batched_tokens
        self._least_cap = min(self._most_cap, 16 * context.block_size)
        self._admitted: set[int] = set()
        """Arrivals of those that were admitted and have not ended."""
        self._running_targets: Counter[float] = Counter()
        """Their ITL targets."""
        self._timely = RequestHeap()
        """By when their next token is due."""
        self._late = RequestHeap()

    def on_waiting(self, request: RequestView) -> None:
        """It is timely until it is met in a walk too late."""
        self._timely.push(self._due(request), request)

    def on_left(self, request: RequestView) -> None:
        """It is in one of the two."""
        if not self._timely.discard(request):
            self._late.discard(request)

    def walk(self, now: float) -> Iterator[RequestView]:
        """Those in time by when they are due, then the late by arrival."""
        self._rate.tick(now)
        for request in self._timely.walk():
            if self._defers and self._is_late(request, now):
                self._timely.discard(request)
                self._late.push(0, request)
            else:
                yield request
        yield from self._late.walk()

    def order_running(self, running: Sequence[RequestView], now: float) -> list[int]:
        """Those that generate take from the budget first, then whose first token is due first."""
        keys = [(not request.num_output_tokens, self._due(request)) for request in running]
        return sorted(range(len(running)), key=keys.__getitem__)

    def max_prefill_tokens(self, num_running: int, num_waiting: int) -> int | None:
        """What fits into the share of the least ITL target; None where nothing is known, or nobody runs."""
        rate = self._rate.tokens_per_s
        if not self._limits_prefill or rate is None or not num_running or not self._running_targets:
            return None
        return max(self._least_cap, int(min(self._share * rate * min(self._running_targets), self._most_cap)))

    def on_admitted(self, requests: Sequence[RequestView]) -> None:
        """Their ITL targets count from now on."""
        for request in requests:
            if request.arrival_index not in self._admitted:
                self._admitted.add(request.arrival_index)
                self._running_targets[self._itl_target_s(request)] += 1

    def on_finished(self, requests: Sequence[RequestView]) -> None:
        """Their ITL targets count no more."""
        for request in requests:
            if request.arrival_index in self._admitted:
                self._admitted.remove(request.arrival_index)
                target = self._itl_target_s(request)
                self._running_targets[target] -= 1
                if not self._running_targets[target]:
                    del self._running_targets[target]

    def on_tokens(self, requests: Sequence[RequestView], num_tokens: Sequence[int]) -> None:
        """How much a step computes tells how long a prompt takes."""
        self._rate.add(num_tokens)

    def _due(self, request: RequestView) -> float:
        ttft_s = request.ttft_target_s
        first = request.arrival_time + (self._ttft_s if ttft_s is None else ttft_s)
        return first + request.num_output_tokens * self._itl_target_s(request)

    def _itl_target_s(self, request: RequestView) -> float:
        itl_s = request.itl_target_s
        return self._itl_s if itl_s is None else itl_s

    def _is_late(self, request: RequestView, now: float) -> bool:
        if request.num_output_tokens:
            return False
        due = self._due(request)
        # A look-up in the cache is worth while only where it may decide.
        if now > due or now + self._rate.seconds(request.num_tokens) <= due:
            return now > due
        return now + self._rate.seconds(request.num_tokens - request.num_cached_tokens()) > due
