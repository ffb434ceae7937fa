"""Registers both policies. It imports no torch, as vcore imports it at every start."""

from vcore.plugins import EvictionPolicySpec, SchedulingPolicySpec, hookimpl


@hookimpl
def vcore_scheduling_policies() -> list[SchedulingPolicySpec]:
    """`adaptive_lifo`."""
    return [
        SchedulingPolicySpec(
            name="adaptive_lifo",
            load="vcore_adaptive.scheduling_policy:AdaptiveLIFO",
            api="1.0",
            options="vcore_adaptive.options:AdaptiveLIFOOptions",
            summary="By arrival; the newest first while the queue does not drain",
        )
    ]


@hookimpl
def vcore_eviction_policies() -> list[EvictionPolicySpec]:
    """`arc`."""
    return [
        EvictionPolicySpec(
            name="arc",
            load="vcore_adaptive.eviction_policy:ARCEviction",
            api="1.0",
            options="vcore_adaptive.options:ARCOptions",
            summary="ARC: shares the cache between what came lately and what came again",
        )
    ]
