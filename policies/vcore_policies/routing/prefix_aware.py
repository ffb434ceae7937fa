"""`PrefixAwareRouting`: the replica that has the most of a prompt cached, of those that are not overloaded."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.interfaces.routing import ArrivalView, ReplicaView, RoutingContext, RoutingPolicy
from vcore_policies.routing.options import PrefixAwareRoutingOptions

__all__ = ["PrefixAwareRouting"]


class PrefixAwareRouting(RoutingPolicy):
    """The longest cached prefix, within a bound on the load: that of "Consistent hashing with bounded loads"
    (V. Mirrokni, M. Thorup and M. Zadimoghaddam, SODA 2018), a factor times the mean, with the new request counted.
    """

    def __init__(self, *, options: PrefixAwareRoutingOptions | None, context: RoutingContext) -> None:
        """Without options, the defaults of `PrefixAwareRoutingOptions`."""
        self._slack = (options or PrefixAwareRoutingOptions()).slack

    def choose(self, request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
        """Of equals the least loaded, of these the first."""
        loads = [replica.num_unfinished for replica in replicas]
        # The request itself counts, so that somebody may always take it.
        most = -(-self._slack * (sum(loads) + 1) // len(loads))
        allowed = [index for index, load in enumerate(loads) if load < most]
        return max(allowed, key=lambda index: (replicas[index].num_cached_tokens(request), -loads[index], -index))
