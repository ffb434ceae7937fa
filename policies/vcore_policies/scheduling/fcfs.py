"""`FCFSPolicy`: first come, first served."""

from __future__ import annotations

from vcore.interfaces.scheduling import RequestView, SchedulingContext, SchedulingPolicy

__all__ = ["FCFSPolicy"]


class FCFSPolicy(SchedulingPolicy):
    """Requests are served by arrival, and the latest to arrive is preempted first.

    Starvation bound: nobody is ever passed by a later arrival.
    """

    max_overtaking_s = 0.0

    def __init__(self, *, options: None, context: SchedulingContext) -> None:
        """Takes no options."""

    def waiting_key(self, request: RequestView) -> int:
        """The arrival, which a preempted request keeps."""
        return request.arrival_index
