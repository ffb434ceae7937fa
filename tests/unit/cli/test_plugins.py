"""``vcore plugins``: what each command prints, and its exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vcore.cli.main import run
from vcore.plugins.stale_metadata import StaleEntryPoint

PLUGIN = """
from pydantic import Field
from vcore.config import PluginOptions
from vcore.interfaces.eviction import EvictionPolicy
from vcore.plugins import EvictionPolicySpec, hookimpl

class Options(PluginOptions):
    window: int = Field(default=4, ge=1)

class MRU(EvictionPolicy):
    def __init__(self, *, options, context): ...
    def on_insert(self, block_ids): ...
    def on_hit(self, block_ids): ...
    def on_free(self, block_ids): ...
    def on_evict(self, block_ids): ...
    def pick_victims(self, count):
        return []

print("chatter at import")

@hookimpl
def vcore_eviction_policies():
    return [
        EvictionPolicySpec(name="mru", load=MRU, api="1.0", options=Options, summary="most recent first"),
        EvictionPolicySpec(name="half", load=":Options", api="1.0", options="acme_absent:Options"),
        EvictionPolicySpec(name="needy", load=MRU, api="1.0", requires=("acme-absent",)),
    ]
"""


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    """The file of three plugins: one that works, one whose code is wrong, one that lacks a package."""
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN, encoding="utf-8")
    return str(path)


def json_of(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> dict[str, Any]:
    """What ``vcore plugins ARGUMENTS --json`` prints; nothing else may stand on stdout."""
    assert run(["plugins", *arguments, "--json"]) == status
    loaded = json.loads(capsys.readouterr().out)
    assert isinstance(loaded, dict)
    return loaded


def mine(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in result["plugins"] if row["distribution"] == "mine.py"}


def test_list(plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = mine(json_of(capsys, "list", "-p", plugin))
    assert rows["mru"] == {
        "kind": "eviction_policy",
        "name": "mru",
        "distribution": "mine.py",
        "version": None,
        "status": "ok",
        "reason": "",
        "notes": ["it wrote 18 characters at import: 'chatter at import'"],
    }
    assert rows["needy"]["status"] == "missing_requirement"


def test_list_for_people(plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "list", "-p", plugin]) == 0
    out = capsys.readouterr().out.splitlines()
    [header, *lines] = out
    assert header.split() == ["KIND", "NAME", "DISTRIBUTION", "VERSION", "STATUS"]
    [line] = [line for line in lines if " mru " in line]
    assert line.split()[:5] == ["eviction_policy", "mru", "mine.py", "-", "ok"]
    assert "most recent first; it wrote 18 characters" in line


def test_list_names_what_stale_metadata_misses(
    plugin: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [
        StaleEntryPoint(distribution="acme", name=name, value="acme.plugin", folder=Path("/src"), is_gone=is_gone)
        for name, is_gone in (("fresh", False), ("old", True))
    ]
    monkeypatch.setattr("vcore.plugins.stale_metadata.stale_entry_points", lambda: found)
    rows = json_of(capsys, "list", "-p", plugin)["stale"]
    remedy = "pip install --no-deps --editable /src"
    common = {"distribution": "acme", "value": "acme.plugin", "remedy": remedy}
    assert rows == [{"name": "fresh", "problem": "missing", **common}, {"name": "old", "problem": "gone", **common}]
    assert run(["plugins", "list", "-p", plugin]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("stale: ")]
    assert len(told) == 2
    assert "fresh = 'acme.plugin' in /src/pyproject.toml is not installed" in told[0]
    assert remedy in told[0]


def test_a_configuration_file_and_what_it_keeps_out(
    plugin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "engine.yaml"
    config.write_text("plugins: {load: [./mine.py], disable: [eviction_policy/mru]}\n", encoding="utf-8")
    rows = mine(json_of(capsys, "list", "--config", str(config)))
    assert rows["mru"]["status"] == "hidden"


def test_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json_of(capsys, "list", "-p", "no:executor")["plugins"]
    assert [row["status"] for row in rows if row["name"] == "executor"] == ["disabled"]


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "list", "-p", "./absent.py"]) == 2
    assert "expected a Python file at" in capsys.readouterr().err


def test_info(plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    [row] = json_of(capsys, "info", "eviction_policy/mru@mine.py", "-p", plugin)["plugins"]
    assert (row["api"], row["rank"], row["summary"], row["path"]) == ("1.0", 0, "most recent first", plugin)
    assert row["options"]["properties"]["window"]["minimum"] == 1
    assert len(row["sha256"]) == 64


def test_info_of_what_cannot_be_loaded_still_answers(plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    [row] = json_of(capsys, "info", "half", "-p", plugin)["plugins"]
    assert "acme_absent" in row["options"]["error"]
    [row] = json_of(capsys, "info", "needy", "-p", plugin)["plugins"]
    assert row["options"] is None


def test_info_for_people(plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "info", "mru", "-p", plugin]) == 0
    assert "most recent first" in capsys.readouterr().out


@pytest.mark.parametrize("address", ["mruu", "eviction_policy/mruu"])
def test_info_of_nothing(address: str, plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "info", address, "-p", plugin]) == 1
    assert "did you mean 'mru'" in capsys.readouterr().err


def test_check_imports_the_code(plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = json_of(capsys, "check", "mru", "half", "needy", "-p", plugin, status=1)
    rows = mine(result)
    assert {name: row["status"] for name, row in rows.items()} == {
        "mru": "ok",
        "half": "broken",
        "needy": "missing_requirement",
    }
    assert "options='acme_absent:Options' cannot be imported" in rows["half"]["reason"]
    assert result["ok"] is False


def test_check_passes_what_lacks_a_package_unless_it_is_required(
    plugin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = Path(plugin).with_name("plain.py")
    source = PLUGIN.replace('        EvictionPolicySpec(name="needy"', '        # EvictionPolicySpec(name="needy"')
    source = "\n".join(line for line in source.splitlines() if '"half"' not in line)
    plain.write_text(source, encoding="utf-8")
    assert json_of(capsys, "check", "mru", "-p", str(plain))["ok"] is True
    required = json_of(
        capsys, "check", "mru", "-p", str(plain), "--set", "plugins.require=[eviction_policy/gone]", status=1
    )
    assert "no eviction_policy called 'gone'" in required["required"]


def test_check_for_people(plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "check", "half", "-p", plugin]) == 1
    out = capsys.readouterr().out
    assert "broken  eviction_policy/half@mine.py" in out


def test_why(plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    [row] = json_of(capsys, "why", "eviction_policy/mru", "-p", plugin, "--set", "cache.eviction=mru")["plugins"]
    assert row["selected"] is True
    assert "`cache.eviction: mru` selects it" in row["explanation"]
    [row] = json_of(capsys, "why", "eviction_policy/needy", "-p", plugin)["plugins"]
    assert row["selected"] is False


def test_why_for_people(plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "why", "eviction_policy/mru", "-p", plugin]) == 0
    out = capsys.readouterr().out
    assert "eviction_policy/mru@mine.py: ok, not selected" in out
    assert "  - `auto` considers vcore-engine and plugins.prefer alone; select it by name" in out
