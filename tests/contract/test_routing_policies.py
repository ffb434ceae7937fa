"""What every routing policy must keep to, whatever it goes by."""

from __future__ import annotations

import pytest
from vcore_policies.routing import plugin

from vcore.plugins import RoutingPolicySpec
from vcore.testing import RoutingPolicyContract


class TestRoundRobin(RoutingPolicyContract):
    policy = "round_robin"


class TestLeastLoaded(RoutingPolicyContract):
    policy = "least_loaded"


class TestPowerOfTwo(RoutingPolicyContract):
    policy = "power_of_two"
    tight_options = {"choices": 50}


class TestPrefixAware(RoutingPolicyContract):
    policy = "prefix_aware"
    tight_options = {"slack": 1.0}


@pytest.mark.parametrize("spec", plugin.vcore_routing_policies(), ids=lambda spec: spec.name)
def test_every_policy_is_held_to_it(spec: RoutingPolicySpec) -> None:
    cases = [value for name, value in globals().items() if name.startswith("Test")]
    assert spec.name in {case.policy for case in cases}
