"""Registers the routing policies."""

from __future__ import annotations

from vcore.plugins import RoutingPolicySpec, hookimpl

_HERE = "vcore_policies.routing"


@hookimpl
def vcore_routing_policies() -> list[RoutingPolicySpec]:
    """Those that do not look at replicas' caches, then the one that does."""
    return [
        RoutingPolicySpec(
            name="round_robin",
            load=f"{_HERE}.round_robin:RoundRobinRouting",
            api="1.0",
            summary="One replica after another",
            rank=10,
        ),
        RoutingPolicySpec(
            name="least_loaded",
            load=f"{_HERE}.least_loaded:LeastLoadedRouting",
            api="1.0",
            summary="The replica with the fewest requests that have not ended",
        ),
        RoutingPolicySpec(
            name="power_of_two",
            load=f"{_HERE}.power_of_two:PowerOfTwoRouting",
            options=f"{_HERE}.options:PowerOfTwoOptions",
            api="1.0",
            summary="The less loaded of two replicas that are drawn",
        ),
        RoutingPolicySpec(
            name="prefix_aware",
            load=f"{_HERE}.prefix_aware:PrefixAwareRouting",
            options=f"{_HERE}.options:PrefixAwareRoutingOptions",
            api="1.0",
            summary="The replica with the longest cached prefix, unless it has much more to do than the others",
        ),
    ]
