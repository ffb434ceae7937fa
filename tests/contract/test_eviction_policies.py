"""What every eviction policy must keep to, whatever its order."""

from __future__ import annotations

import pytest
from vcore_policies.eviction import plugin

from vcore.plugins import EvictionPolicySpec
from vcore.testing import EvictionPolicyContract


class TestFIFO(EvictionPolicyContract):
    policy = "fifo"


class TestLRU(EvictionPolicyContract):
    policy = "lru"


class TestPriority(EvictionPolicyContract):
    policy = "priority"


class TestLFU(EvictionPolicyContract):
    policy = "lfu"
    tight_options = {"remembered": 20, "half_life": 3.0}


class TestSLRU(EvictionPolicyContract):
    policy = "slru"
    tight_options = {"protected": 0.1}


class TestS3FIFO(EvictionPolicyContract):
    policy = "s3fifo"
    tight_options = {"small": 0.5}


class TestTTL(EvictionPolicyContract):
    policy = "ttl"
    tight_options = {"most_pinned": 0.2}


class TestCostAware(EvictionPolicyContract):
    policy = "cost_aware"
    tight_options = {"balance": 1}


class TestPrefixAware(EvictionPolicyContract):
    policy = "prefix_aware"
    tight_options = {"ghosts": 1, "least_ghosts": 0, "half_life": 0.5}


@pytest.mark.parametrize("spec", plugin.vcore_eviction_policies(), ids=lambda spec: spec.name)
def test_every_policy_is_held_to_it(spec: EvictionPolicySpec) -> None:
    cases = [value for name, value in globals().items() if name.startswith("Test")]
    assert spec.name in {case.policy for case in cases}
