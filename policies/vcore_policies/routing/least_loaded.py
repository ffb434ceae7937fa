"""`LeastLoadedRouting`: the replica with the fewest requests that have not ended."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.interfaces.routing import ArrivalView, ReplicaView, RoutingContext, RoutingPolicy

__all__ = ["LeastLoadedRouting"]


class LeastLoadedRouting(RoutingPolicy):
    """Join the shortest queue (W. Winston, "Optimality of the shortest line discipline", J. Appl. Prob. 14(1), 1977),
    where a queue is all that was sent and has not ended.
    """

    def __init__(self, *, options: None, context: RoutingContext) -> None:
        """It keeps nothing but whose turn is next."""
        self._next = 0

    def choose(self, request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
        """Of equals by turns, so that a fleet with little to do does not leave it all to one."""
        count, first = len(replicas), self._next
        turns = ((first + offset) % count for offset in range(count))
        chosen = min(turns, key=lambda index: replicas[index].num_unfinished)
        self._next = chosen + 1
        return chosen
