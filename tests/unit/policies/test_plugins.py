"""What the registration modules say, and what they import."""

from __future__ import annotations

import subprocess
import sys

import pytest
from vcore_policies.eviction import plugin as eviction
from vcore_policies.scheduling import plugin as scheduling

ALL = [*scheduling.vcore_scheduling_policies(), *eviction.vcore_eviction_policies()]


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: f"{spec.kind}-{spec.name}")
def test_specs_are_complete(spec) -> None:  # type: ignore[no-untyped-def]
    assert spec.api == "1.0"
    assert spec.summary
    assert isinstance(spec.load, str)


def test_auto_has_one_answer_of_each_kind() -> None:
    for specs, best in ((scheduling.vcore_scheduling_policies(), "fcfs"), (eviction.vcore_eviction_policies(), "lru")):
        ranks = sorted(((spec.rank, spec.name) for spec in specs), reverse=True)
        assert ranks[0][1] == best
        assert ranks[0][0] > ranks[1][0]


def test_registration_imports_neither_torch_nor_the_policies() -> None:
    code = (
        "import sys, vcore_policies.scheduling.plugin, vcore_policies.eviction.plugin; "
        "print([name for name in sys.modules if name in ('torch', 'numpy') or name.endswith(('.fcfs', '.lru'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_policies_and_scheduler_run_without_torch() -> None:
    code = (
        "import sys, vcore.scheduler, vcore_policies.scheduling.priority, vcore_policies.eviction.lru; "
        "print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
