"""``vcore env``: a description that is whole, also where something is missing."""

from __future__ import annotations

import builtins
import json
from typing import Any

import pytest

from vcore.cli import env
from vcore.cli.main import run
from vcore.version import __version__


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return env.describe()


def test_it_describes_versions_plugins_and_machine(described: dict[str, Any]) -> None:
    assert described["vcore"] == __version__
    assert described["packages"]["torch"]
    assert described["cpu"]["model"]
    assert described["cpu"]["usable"] >= 1
    assert described["memory_bytes"] is None or described["memory_bytes"] > 2**20
    assert "vcore-engine" in [row["distribution"] for row in described["plugins"]]
    assert described["cuda"]["available"] is bool(described["cuda"]["devices"])


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["env", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["vcore"] == __version__


def test_lines_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["env"]) == 0
    printed = capsys.readouterr().out
    for fragment in (f"vcore {__version__}", "python 3.", "torch ", "vcore-engine", "memory: ", "cuda: "):
        assert fragment in printed


def test_a_gpu_is_described(described: dict[str, Any]) -> None:
    device = {"name": "Example", "memory_bytes": 80 * 2**30, "compute_capability": "9.0"}
    cuda = {"available": True, "version": "13.0", "devices": [device]}
    lines = env._lines(described | {"cuda": cuda, "memory_bytes": None})
    assert "cuda: 1 devices" in lines
    assert "  Example, 80.0 GiB, compute capability 9.0" in lines
    assert "memory: unknown" in lines


def test_a_torch_that_cannot_be_imported_is_told(monkeypatch: pytest.MonkeyPatch, described: dict[str, Any]) -> None:
    real_import = builtins.__import__

    def without_torch(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "torch":
            raise OSError("libcudart.so: cannot open")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    cuda = env._cuda()
    assert cuda == {"available": False, "error": "torch cannot be imported: OSError: libcudart.so: cannot open"}
    assert "cuda: torch cannot be imported: OSError: libcudart.so: cannot open" in env._lines(
        described | {"cuda": cuda}
    )


def test_missing_packages_and_broken_plugins_are_told(described: dict[str, Any]) -> None:
    row = {"distribution": "acme", "version": None, "plugins": 1, "not_usable": ["?/x@acme: broken: boom"]}
    lines = env._lines(described | {"packages": {"absent": None}, "plugins": [row]})
    assert "  absent (not installed)" in lines
    assert "    not usable: ?/x@acme: broken: boom" in lines
    assert env._version("no-such-distribution-here") is None


def test_a_platform_that_tells_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sysconf")
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("pathlib.Path.exists", lambda self: False)
    monkeypatch.setattr("platform.processor", lambda: "")
    assert env._memory_bytes() is None
    assert env._usable_cpus() is not None
    assert env._cpu_model()
