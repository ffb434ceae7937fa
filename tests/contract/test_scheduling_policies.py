"""What every scheduling policy must keep to, whatever its order: nobody is lost, and nothing is computed wrongly."""

from __future__ import annotations

import pytest
from vcore_policies.scheduling import plugin

from vcore.plugins import SchedulingPolicySpec
from vcore.testing import SchedulingPolicyContract


class TestFCFS(SchedulingPolicyContract):
    policy = "fcfs"


class TestPriority(SchedulingPolicyContract):
    policy = "priority"
    tight_options = {"ageing_s": 5.0, "max_level": 2}


class TestShortestJob(SchedulingPolicyContract):
    policy = "shortest_job"
    tight_options = {"patience": 3}


class TestShortestRemaining(SchedulingPolicyContract):
    policy = "shortest_remaining"
    tight_options = {"patience": 2, "displace_ratio": 1.0, "max_displacements": 1}


class TestEarliestDeadline(SchedulingPolicyContract):
    policy = "earliest_deadline"
    tight_options = {"patience": 2, "ttft_target_s": 8.0}


class TestFairShare(SchedulingPolicyContract):
    policy = "fair_share"
    tight_options = {"patience": 3}


class TestPrefixAware(SchedulingPolicyContract):
    policy = "prefix_aware"
    tight_options = {"patience": 2}


class TestPrefixAwareDepthFirst(SchedulingPolicyContract):
    policy = "prefix_aware"
    options = {"order": "depth_first"}
    tight_options = {"patience": 3}


class TestMultilevelFeedback(SchedulingPolicyContract):
    policy = "multilevel_feedback"
    tight_options = {"patience": 2, "quantum": 10.0, "max_displacements": 0}


@pytest.mark.parametrize("spec", plugin.vcore_scheduling_policies(), ids=lambda spec: spec.name)
def test_every_policy_is_held_to_it(spec: SchedulingPolicySpec) -> None:
    cases = [value for name, value in globals().items() if name.startswith("Test")]
    assert spec.name in {case.policy for case in cases}
