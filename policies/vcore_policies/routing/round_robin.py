"""`RoundRobinRouting`: one replica after another."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.interfaces.routing import ArrivalView, ReplicaView, RoutingContext, RoutingPolicy

__all__ = ["RoundRobinRouting"]


class RoundRobinRouting(RoutingPolicy):
    """Every replica gets as many requests as any other, whatever they ask for."""

    looks_at_replicas = False

    def __init__(self, *, options: None, context: RoutingContext) -> None:
        """The first request goes to the first replica."""
        self._next = 0

    def choose(self, request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
        """The one after the last."""
        chosen = self._next
        self._next = (chosen + 1) % len(replicas)
        return chosen
