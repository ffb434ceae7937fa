"""Registers the scheduling policies."""

from __future__ import annotations

from vcore.plugins import SchedulingPolicySpec, hookimpl


@hookimpl
def vcore_scheduling_policies() -> list[SchedulingPolicySpec]:
    """First come first served, and priority."""
    return [
        SchedulingPolicySpec(
            name="fcfs",
            load="vcore_policies.scheduling.fcfs:FCFSPolicy",
            api="1.0",
            summary="First come, first served",
            rank=10,
        ),
        SchedulingPolicySpec(
            name="priority",
            load="vcore_policies.scheduling.priority:PriorityPolicy",
            api="1.0",
            summary="The lowest SamplingParams.priority first; makes room for it by preemption",
        ),
    ]
