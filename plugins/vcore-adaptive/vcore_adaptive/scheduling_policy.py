"""`AdaptiveLIFO`: first come, first served, until the queue no longer drains."""

from collections import OrderedDict
from collections.abc import Iterator

from vcore.interfaces import QueueingPolicy, RequestView, SchedulingContext

from vcore_adaptive.options import AdaptiveLIFOOptions


class AdaptiveLIFO(QueueingPolicy):
    """By arrival; while somebody has waited for longer than `standing_s`, the newest first.

    Under overload a queue by arrival makes everybody wait until nobody is in time. The newest
    first gives those whom it serves an answer at once, and lets those wait who are late anyway
    (Maurer, "Fail at Scale", ACM Queue 13(8), 2015). Who was preempted comes before all others.

    Starvation bound: `patience` admissions in a row may pass over the request that arrived first.
    """

    def __init__(self, *, options: AdaptiveLIFOOptions, context: SchedulingContext) -> None:
        self.patience = options.patience
        self._standing_s = options.standing_s
        self._preempted: OrderedDict[int, RequestView] = OrderedDict()
        self._waiting: OrderedDict[int, RequestView] = OrderedDict()
        # Taken out of `_waiting` by a walk that is not over.
        self._offered: OrderedDict[int, RequestView] = OrderedDict()

    def on_waiting(self, request: RequestView) -> None:
        """It comes last, or among the preempted."""
        queue = self._preempted if request.num_preemptions else self._waiting
        queue[request.arrival_index] = request

    def on_left(self, request: RequestView) -> None:
        """It is in one of the three."""
        for queue in (self._offered, self._waiting, self._preempted):
            if queue.pop(request.arrival_index, None) is not None:
                return

    def walk(self, now: float) -> Iterator[RequestView]:
        """Those that were preempted, then from one end of the queue; who is left keeps the place."""
        yield from list(self._preempted.values())  # never more than rows, so a copy is cheap
        newest_first = self._is_standing(now)
        try:
            while self._waiting:
                arrival, request = self._waiting.popitem(last=newest_first)
                self._offered[arrival] = request
                yield request
        finally:
            while self._offered:
                arrival, request = self._offered.popitem()
                self._waiting[arrival] = request
                self._waiting.move_to_end(arrival, last=newest_first)

    def _is_standing(self, now: float) -> bool:
        oldest = next(iter(self._waiting.values()), None)
        return oldest is not None and now - oldest.arrival_time > self._standing_s
