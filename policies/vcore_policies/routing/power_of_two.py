"""`PowerOfTwoRouting`: the less loaded of two replicas that are drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vcore.interfaces.routing import ArrivalView, ReplicaView, RoutingContext, RoutingPolicy
from vcore_policies.routing.options import PowerOfTwoOptions

__all__ = ["PowerOfTwoRouting"]


class PowerOfTwoRouting(RoutingPolicy):
    """Nearly as even as looking at all, for two looks (M. Mitzenmacher, "The Power of Two Choices in Randomized Load
    Balancing", IEEE TPDS 12(10), 2001).
    """

    def __init__(self, *, options: PowerOfTwoOptions | None, context: RoutingContext) -> None:
        """Without options, the defaults of `PowerOfTwoOptions`."""
        self._rng = np.random.default_rng(context.seed)
        self._count = min((options or PowerOfTwoOptions()).choices, context.num_replicas)

    def choose(self, request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
        """Of the drawn ones the one with the fewest unfinished requests; of equals the one that was drawn first."""
        drawn: list[int] = self._rng.choice(len(replicas), size=self._count, replace=False).tolist()
        return min(drawn, key=lambda index: replicas[index].num_unfinished)
