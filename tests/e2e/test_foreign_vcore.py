"""Another distribution called `vcore` beside ours: the console script says so, and how to repair it.

What PyPI's `vcore` does to an installation is laid out in a folder; the console script runs with
nothing else on its path, so that the installation under test is that folder.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vcore
import vcore_console
from vcore.testing.distributions import write_distribution

FOREIGN = "from .Vcore import Vcore\nfrom .constants import *\n"
REPAIR = "pip uninstall vcore && pip install --force-reinstall --no-deps vcore-engine"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An installation of ours, as far as the console script needs it to tell that something is wrong."""
    shutil.copy(vcore_console.__file__, tmp_path / "vcore_console.py")
    package = tmp_path / "vcore"
    package.mkdir()
    for name in ("__init__.py", "_lazy.py", "version.py"):
        shutil.copy(Path(vcore.__file__).with_name(name), package / name)
    return tmp_path


def run_console(*path: Path) -> subprocess.CompletedProcess[str]:
    """Run the console script with `path` and the standard library alone."""
    script = f"import sys; sys.path[:0] = {list(map(str, path))!r}; import vcore_console; vcore_console.main()"
    return subprocess.run([sys.executable, "-I", "-S", "-c", script, "--version"], capture_output=True, text=True)


def assert_repair(result: subprocess.CompletedProcess[str], finding: str) -> None:
    assert result.returncode == 1
    assert result.stdout == ""
    assert finding in result.stderr
    assert REPAIR in result.stderr
    assert "Traceback" not in result.stderr


def test_overwritten(site: Path) -> None:
    (site / "vcore" / "__init__.py").write_text(FOREIGN, encoding="utf-8")
    assert_repair(run_console(site), "an unrelated package called `vcore` has overwritten or hidden it")


def test_hidden_by_one_earlier_on_the_path(site: Path) -> None:
    foreign = site / "site-packages" / "vcore" / "__init__.py"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("raise ImportError('web3 is missing')\n", encoding="utf-8")
    assert_repair(run_console(foreign.parents[1], site), f"{foreign} is not vcore-engine's")


def test_uninstalled_again_and_our_files_with_it(site: Path) -> None:
    (site / "vcore" / "__init__.py").unlink()
    assert_repair(run_console(site), "has lost its __init__.py")


def test_gone_altogether(site: Path) -> None:
    shutil.rmtree(site / "vcore")
    assert_repair(run_console(site), "vcore-engine's package `vcore` is missing")


def test_one_of_our_modules_gone(site: Path) -> None:
    assert_repair(run_console(site), "vcore-engine's module vcore.cli is missing")


def test_the_repair_names_where_ours_came_from(site: Path) -> None:
    write_distribution(site, "vcore-engine", version="0.1.0")
    (site / "vcore_engine-0.1.0.dist-info" / "direct_url.json").write_text(
        '{"url": "file:///home/me/vcore", "dir_info": {"editable": true}}', encoding="utf-8"
    )
    result = run_console(site)
    assert_repair(result, "write -e /home/me/vcore in place of vcore-engine")


def test_our_own_package_passes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["vcore", "--version"])
    with pytest.raises(SystemExit) as ended:
        vcore_console.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"vcore {vcore.__version__}\n"


def test_an_import_error_of_something_else_is_not_called_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vcore.cli.main", None)
    monkeypatch.setattr(vcore_console, "_damage", lambda: None)
    real = __import__

    def fail(name: str, *rest: object, **more: object) -> object:
        if name == "vcore.cli.main":
            raise ModuleNotFoundError("No module named 'typer'", name="typer")
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("builtins.__import__", fail)
    with pytest.raises(ModuleNotFoundError, match="typer"):
        vcore_console.main()
