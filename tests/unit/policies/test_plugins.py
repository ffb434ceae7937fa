"""What the registration modules say, and what they import."""

from __future__ import annotations

import subprocess
import sys

import pytest
from vcore_policies.eviction import plugin as eviction
from vcore_policies.routing import plugin as routing
from vcore_policies.scheduling import plugin as scheduling

KINDS = {
    "fcfs": scheduling.vcore_scheduling_policies(),
    "lru": eviction.vcore_eviction_policies(),
    "round_robin": routing.vcore_routing_policies(),
}
"""The specs of each kind, by what `auto` takes."""
ALL = [spec for specs in KINDS.values() for spec in specs]


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: f"{spec.kind}-{spec.name}")
def test_specs_are_complete(spec) -> None:  # type: ignore[no-untyped-def]
    assert spec.api == "1.0"
    assert spec.summary
    assert isinstance(spec.load, str)


def test_auto_has_one_answer_of_each_kind() -> None:
    for best, specs in KINDS.items():
        ranks = sorted(((spec.rank, spec.name) for spec in specs), reverse=True)
        assert ranks[0][1] == best
        assert ranks[0][0] > ranks[1][0]


def test_registration_imports_neither_torch_nor_the_policies() -> None:
    code = (
        "import sys, vcore_policies.scheduling.plugin, vcore_policies.eviction.plugin, "
        "vcore_policies.routing.plugin; "
        "policies = ('.fcfs', '.lru', '.round_robin'); "
        "print([name for name in sys.modules if name in ('torch', 'numpy') or name.endswith(policies)])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_policies_and_scheduler_run_without_torch() -> None:
    code = (
        "import sys, vcore.scheduler, vcore_policies.scheduling.priority, vcore_policies.eviction.lru, "
        "vcore_policies.routing.prefix_aware, vcore_policies.routing.power_of_two; "
        "print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
