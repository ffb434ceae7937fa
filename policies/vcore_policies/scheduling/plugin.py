"""Registers the scheduling policies."""

from __future__ import annotations

from vcore.plugins import SchedulingPolicySpec, hookimpl

_OPTIONS = "vcore_policies.scheduling.options"


@hookimpl
def vcore_scheduling_policies() -> list[SchedulingPolicySpec]:
    """In which order requests run."""
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
            options=f"{_OPTIONS}:PriorityOptions",
            api="1.0",
            summary="The lowest SamplingParams.priority first, with ageing; makes room for it by preemption",
        ),
        SchedulingPolicySpec(
            name="shortest_job",
            load="vcore_policies.scheduling.shortest_job:ShortestJobPolicy",
            options=f"{_OPTIONS}:ShortestJobOptions",
            api="1.0",
            summary="The least work first, as requests state it or as it is predicted",
        ),
        SchedulingPolicySpec(
            name="shortest_remaining",
            load="vcore_policies.scheduling.shortest_remaining:ShortestRemainingPolicy",
            options=f"{_OPTIONS}:ShortestRemainingOptions",
            api="1.0",
            summary="The least left to do first; makes room for it by preemption",
        ),
        SchedulingPolicySpec(
            name="earliest_deadline",
            load="vcore_policies.scheduling.earliest_deadline:EarliestDeadlinePolicy",
            options=f"{_OPTIONS}:EarliestDeadlineOptions",
            api="1.0",
            summary="The first to be due by its TTFT and ITL targets; what is late anyway waits behind",
        ),
        SchedulingPolicySpec(
            name="fair_share",
            load="vcore_policies.scheduling.fair_share:FairSharePolicy",
            options=f"{_OPTIONS}:FairShareOptions",
            api="1.0",
            summary="The tenant that was served least first (virtual token counter)",
        ),
        SchedulingPolicySpec(
            name="prefix_aware",
            load="vcore_policies.scheduling.prefix_aware:PrefixAwarePolicy",
            options=f"{_OPTIONS}:PrefixAwareOptions",
            api="1.0",
            summary="The longest cached prefix first, or depth first through shared prefixes",
        ),
        SchedulingPolicySpec(
            name="multilevel_feedback",
            load="vcore_policies.scheduling.multilevel_feedback:MultilevelFeedbackPolicy",
            options=f"{_OPTIONS}:MultilevelFeedbackOptions",
            api="1.0",
            summary="The least served first, level by level; knows nothing of lengths",
        ),
    ]
