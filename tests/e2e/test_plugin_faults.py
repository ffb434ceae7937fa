"""Faulty distributions, really installed, all at once: each is one line with its reason, and none touches another.

The distributions stand in a folder on the path of a fresh process, as pip would have left them there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vcore.testing.distributions import write_distribution

HEAD = "from vcore.plugins import EvictionPolicySpec, hookimpl\n"
POLICY = """
from vcore.interfaces.eviction import EvictionPolicy

class Policy(EvictionPolicy):
    def __init__(self, *, options, context): ...
    def on_insert(self, block_ids): ...
    def on_hit(self, block_ids): ...
    def on_free(self, block_ids): ...
    def on_evict(self, block_ids): ...
    def pick_victims(self, count):
        return []
"""


def hook(body: str, *, marker: str = "@hookimpl", name: str = "vcore_eviction_policies") -> str:
    """The source of a registration module with one hook."""
    return f"{HEAD}\n{marker}\ndef {name}():\n    {body}\n"


def spec(name: str, **fields: str) -> str:
    """The source of a spec; `fields` are source, too."""
    values = {"name": repr(name), "load": "'acme_good_code:Policy'", "api": "'1.0'", **fields}
    return f"EvictionPolicySpec({', '.join(f'{key}={value}' for key, value in values.items())})"


@dataclass(frozen=True)
class Fault:
    """A distribution, and what the list must say of it."""

    source: str
    status: str
    reason: tuple[str, ...] = ()
    kind: str | None = "eviction_policy"
    requires: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


FAULTS: Mapping[str, Fault] = {
    "good": Fault(hook(f"return [{spec('good')}]"), "ok"),
    "broken-import": Fault(
        "import acme_no_such_package\n",
        "broken",
        ("importing it failed: ModuleNotFoundError", "acme_no_such_package"),
        kind=None,
    ),
    "syntax-error": Fault("def broken(:\n", "broken", ("importing it failed: SyntaxError",), kind=None),
    "system-exit": Fault("import sys\nsys.exit(7)\n", "broken", ("ended the process: SystemExit: 7",), kind=None),
    "output": Fault(
        "import sys\nprint('{\"not\": \"ours\"}')\nprint('grumble', file=sys.stderr)\n"
        + hook(f"return [{spec('output')}]"),
        "ok",
        notes=("it wrote 24 characters at import",),
    ),
    "duplicate": Fault(
        hook(f"return [{spec('twin')}, {spec('twin')}]"),
        "duplicate",
        ("acme-duplicate declares eviction_policy/twin 2 times", "rename or remove all but one"),
    ),
    "new-contract": Fault(
        hook(f"return [{spec('new-contract', api=repr('2.0'))}]"),
        "incompatible",
        ("written for eviction_policy API 2.0", "serves 1.x up to 1.0", "upgrade vcore-engine"),
    ),
    "newer-minor": Fault(
        hook(f"return [{spec('newer-minor', api=repr('1.7'))}]"), "incompatible", ("API 1.7", "upgrade vcore-engine")
    ),
    "old-contract": Fault(
        hook(f"return [{spec('old-contract', api=repr('0.3'))}]"),
        "incompatible",
        ("API 0.3", "upgrade acme-old-contract"),
    ),
    "missing-requirement": Fault(
        hook(f"return [{spec('missing', requires=repr(('acme-absent>=2', 'pluggy>=1')))}]"),
        "missing_requirement",
        ("it requires acme-absent>=2, which is not installed; `pip install 'acme-absent>=2'`",),
    ),
    "other-engine": Fault(
        "raise AssertionError('imported')\n",
        "incompatible",
        ("requires vcore-engine>=99", "pip install 'vcore-engine>=99'"),
        kind=None,
        requires=("vcore-engine>=99",),
    ),
    "misspelt-hook": Fault(
        hook(f"return [{spec('x')}]", name="vcore_eviction_policy"),
        "broken",
        ("vcore_eviction_policy is no hook; did you mean 'vcore_eviction_policies'?",),
        kind=None,
    ),
    "forgotten-marker": Fault(
        hook(f"return [{spec('x')}]", marker=""),
        "broken",
        ("vcore_eviction_policies is not marked; write @hookimpl",),
    ),
    "empty-module": Fault("", "broken", ("it implements no hook; write one of vcore_models",), kind=None),
    "raising-hook": Fault(
        hook("raise ValueError('boom')"), "broken", ("vcore_eviction_policies raised ValueError: boom",)
    ),
    "exiting-hook": Fault(hook("raise SystemExit"), "broken", ("vcore_eviction_policies raised SystemExit",)),
    "wrapper": Fault(
        hook("yield", marker="@hookimpl(wrapper=True)"), "broken", ("vcore_eviction_policies is a hook wrapper",)
    ),
    "not-a-list": Fault(
        hook(f"return {spec('x')}"), "broken", ("returned EvictionPolicySpec", "expected a list of EvictionPolicySpec")
    ),
    "bad-spec": Fault(
        hook(f"return [{spec('Bad Name', load=repr('acme'))}]"),
        "broken",
        ("name='Bad Name': expected lower case", "load='acme' is not of the form 'package.module:Attribute'"),
    ),
    "slow-import": Fault(
        "import time\nreal = time.perf_counter\ntime.perf_counter = lambda: real() + 30\n"
        + hook(f"return [{spec('slow-import')}]"),
        "ok",
        notes=("importing its registration module took 30.",),
    ),
    "imports-torch": Fault(
        "import sys, types\nsys.modules.setdefault('torch', types.ModuleType('torch'))\n"
        + hook(f"return [{spec('imports-torch')}]"),
        "ok",
        notes=("its registration module imports torch",),
    ),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all of them."""
    folder = tmp_path_factory.mktemp("site")
    for name, fault in FAULTS.items():
        module = f"acme_{name.replace('-', '_')}"
        write_distribution(
            folder,
            f"acme-{name}",
            entry_points={name: f"{module}.plugin"},
            modules={f"{module}/plugin.py": fault.source},
            requires=fault.requires,
        )
    (folder / "acme_good_code.py").write_text(POLICY, encoding="utf-8")
    return folder


def vcore(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a fresh process that has `site` on its path."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, "-m", "vcore", *arguments], capture_output=True, text=True, env=environment, cwd=site
    )


@pytest.fixture(scope="module")
def listed(site: Path) -> subprocess.CompletedProcess[str]:
    """``vcore plugins list --json`` with all of them installed."""
    return vcore(site, "plugins", "list", "--json")


@pytest.fixture(scope="module")
def rows(listed: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Its rows."""
    return list(json.loads(listed.stdout)["plugins"])


def test_the_list_is_whole(listed: subprocess.CompletedProcess[str]) -> None:
    assert listed.returncode == 0
    assert listed.stdout.count("\n") == 1, "output of a plugin's import reached stdout"
    assert "Traceback" not in listed.stderr
    assert "grumble" not in listed.stderr


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_one_line_with_its_reason(name: str, rows: list[dict[str, Any]]) -> None:
    fault = FAULTS[name]
    found = [row for row in rows if row["distribution"] == f"acme-{name}"]
    assert len(found) == (2 if name == "duplicate" else 1)
    for row in found:
        assert (row["status"], row["kind"], row["version"]) == (fault.status, fault.kind, "1.0")
        for part in fault.reason:
            assert part in row["reason"]
        assert bool(row["reason"]) == bool(fault.reason)
        assert len(row["notes"]) == len(fault.notes)
        for note, part in zip(row["notes"], fault.notes, strict=True):
            assert note.startswith(part)


def test_the_core_is_untouched(rows: list[dict[str, Any]]) -> None:
    own = [row for row in rows if row["distribution"] == "vcore-engine"]
    assert own
    assert {row["status"] for row in own} <= {"ok", "missing_requirement"}


def test_a_slow_import_is_told_at_once(listed: subprocess.CompletedProcess[str]) -> None:
    assert "plugin entry point slow-import of acme-slow-import took 30." in listed.stderr
    assert "`plugins.disable` keeps it from being imported" in listed.stderr


def test_check_fails_for_the_broken_and_passes_the_good(site: Path) -> None:
    good = vcore(site, "plugins", "check", "good", "--json")
    assert (good.returncode, json.loads(good.stdout)["ok"]) == (0, True)
    broken = vcore(site, "plugins", "check", "empty-module", "--json")
    assert (broken.returncode, json.loads(broken.stdout)["ok"]) == (1, False)


SELECT = """
import json, sys
from vcore.config import PluginsConfig
from vcore.errors import PluginError
from vcore.plugins import discover
catalog = discover(PluginsConfig())
for name in json.loads(sys.argv[1]):
    try:
        catalog.find("eviction_policy", name)
    except PluginError as error:
        print(type(error).__name__, type(error.__cause__).__name__, " ".join(str(error).split()))
"""

SELECTED = {
    "broken-import": "PluginBrokenError ModuleNotFoundError plugin entry point broken-import of acme-broken-import 1.0",
    "system-exit": "PluginBrokenError SystemExit plugin entry point system-exit of acme-system-exit 1.0",
    "raising-hook": "PluginBrokenError ValueError plugin entry point raising-hook of acme-raising-hook 1.0",
    "twin": "PluginBrokenError NoneType eviction_policy 'twin' of acme-duplicate 1.0",
    "new-contract": "PluginBrokenError NoneType eviction_policy 'new-contract' of acme-new-contract 1.0",
    "missing": "PluginBrokenError NoneType eviction_policy 'missing' of acme-missing-requirement 1.0",
    "goood": "PluginNotFoundError NoneType there is no eviction_policy called 'goood'; did you mean 'good'?",
}


def test_selected_and_broken_is_fatal_with_the_cause(site: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SELECT, json.dumps(list(SELECTED))],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=site,
        check=True,
    )
    for line, expected in zip(result.stdout.splitlines(), SELECTED.values(), strict=True):
        assert line.startswith(expected)


def test_an_interrupt_at_import_is_the_users(tmp_path: Path) -> None:
    write_distribution(
        tmp_path, "acme-slow", entry_points={"slow": "acme_slow"}, modules={"acme_slow.py": "raise KeyboardInterrupt\n"}
    )
    assert vcore(tmp_path, "plugins", "list").returncode == 130


OPTIONS = (
    HEAD
    + POLICY
    + """
from vcore.config import PluginOptions

class Options(PluginOptions):
    window: int = 4

@hookimpl
def vcore_eviction_policies():
    load, options = "acme_windowed:Policy", "acme_windowed:Options"
    return [EvictionPolicySpec(name="windowed", load=load, api="1.0", options=options)]
"""
)

GIVE_OPTIONS = """
from vcore.config import PluginsConfig
from vcore.plugins import discover
catalog = discover(PluginsConfig())
entry = catalog.find("eviction_policy", "windowed")
for options in ({"window": 2}, {"windwo": 2}, {"window": "many"}):
    try:
        print(type(catalog.create(entry, options=options, context=None)).__name__)
    except Exception as error:
        print(type(error).__name__, " ".join(str(error).split()))
"""


def test_invalid_and_misspelt_options(tmp_path: Path) -> None:
    modules = {"acme_windowed.py": OPTIONS}
    write_distribution(tmp_path, "acme-windowed", entry_points={"windowed": "acme_windowed"}, modules=modules)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", GIVE_OPTIONS], capture_output=True, text=True, env=environment, cwd=tmp_path, check=True
    )
    fits, misspelt, invalid = result.stdout.splitlines()
    assert fits == "Policy"
    assert misspelt.startswith("PluginOptionsError eviction_policy 'windowed' of acme-windowed 1.0")
    assert "windwo: unknown key; did you mean 'window'?" in misspelt
    assert "window: found 'many', expected a whole number" in invalid
