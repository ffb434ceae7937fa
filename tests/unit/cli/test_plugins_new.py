"""``vcore plugins new``: what it writes is correct code of its kind, in both forms, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from vcore.cli.main import run
from vcore.cli.new_plugin.names import PluginNames
from vcore.cli.new_plugin.one_file import join_modules
from vcore.cli.new_plugin.templates import requirement
from vcore.errors import ConfigError
from vcore.plugins import PluginKind

KINDS = [kind.value for kind in PluginKind]


@dataclass(frozen=True, slots=True)
class Made:
    """A plugin ``acmeN`` of every kind, in both forms."""

    folder: Path
    """Of the distributions."""
    files: dict[str, Path]
    """The one file of each kind."""
    site: Path
    """Where the distributions are installed."""
    names: dict[str, str]
    """Of the plugin of each kind."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("new")
    names = {kind: f"acme{number}" for number, kind in enumerate(KINDS)}
    site = root / "site"
    for kind, name in names.items():
        assert run(["plugins", "new", kind, name, "--into", str(root / "folders")]) == 0
        assert run(["plugins", "new", kind, name, "--into", str(root / "files"), "--one-file"]) == 0
        builder = WheelBuilder(str(root / "folders" / name))
        for wheel in builder.build(directory=str(root / "wheels"), versions=["standard"]):
            zipfile.ZipFile(wheel).extractall(site)
    files = {kind: root / "files" / f"{name}.py" for kind, name in names.items()}
    return Made(root / "folders", files, site, names)


def result_of(*command: str | Path, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True
    )


# What it writes


@pytest.mark.parametrize("kind", KINDS)
def test_one_file_passes_the_check(made: Made, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    address = f"{kind}/{made.names[kind]}"
    assert run(["plugins", "check", address, "-p", str(made.files[kind]), "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["plugins"]
    assert (row["kind"], row["status"]) == (kind, "ok")


@pytest.mark.parametrize("kind", KINDS)
def test_a_distribution_passes_the_check_once_installed(
    made: Made, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(made.site))
    name = made.names[kind]
    assert run(["plugins", "check", f"{kind}/{name}@vcore-{name}", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["plugins"]
    assert (row["kind"], row["distribution"], row["version"], row["status"]) == (kind, f"vcore-{name}", "0.1.0", "ok")


def test_registration_imports_no_torch(made: Made) -> None:
    modules = [f"vcore_{name}.plugin" for name in made.names.values()]
    modules += [f"vcore_{path.parent.name[6:]}.options" for path in made.site.glob("vcore_*/options.py")]
    script = f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
    script += "print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], cwd=made.site, capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


def test_the_command_imports_no_torch(tmp_path: Path) -> None:
    script = "import sys; from vcore.cli.main import run; run(['plugins', 'new', 'model', 'acme'])\n"
    script += "print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.endswith("\nFalse\n")


def test_the_tests_of_every_kind_pass(made: Made) -> None:
    folders = sorted(made.folder.glob("*/tests"))
    assert len(folders) == len(KINDS)
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--import-mode=importlib")
    found = result_of("pytest", *options, *folders, cwd=made.folder, path=made.site)
    assert found.returncode == 0, found.stdout
    assert "skipped" not in found.stdout


def test_the_tests_run_in_the_folder_before_it_is_installed(made: Made) -> None:
    folder = made.folder / made.names["observer"]
    found = result_of("pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
    assert found.returncode == 0, found.stdout


def test_linters_and_formatters_leave_it_alone(made: Made) -> None:
    for folder in (made.folder, made.files["model"].parent):
        for command in (("check",), ("format", "--check")):
            found = result_of("ruff", *command, "--no-cache", folder, cwd=folder)
            assert found.returncode == 0, found.stdout
    rules = ("--isolated", "--select", "B,E,F,I,UP,SIM,RUF,PT,C4,PIE,RET", "--target-version", "py311")
    files = made.files["model"].parent
    found = result_of("ruff", "check", "--no-cache", *rules, files, cwd=files)
    assert found.returncode == 0, found.stdout


def test_it_is_typed(made: Made, tmp_path: Path) -> None:
    sources = [*made.folder.glob("*/vcore_*"), *made.folder.glob("*/tests"), *made.files.values()]
    options = ("--strict", "--config-file=", "--follow-imports=silent", f"--cache-dir={tmp_path}")
    found = result_of("mypy", *options, *sources, cwd=tmp_path)
    assert found.returncode == 0, found.stdout


def test_the_project_file(made: Made) -> None:
    name = made.names["eviction_policy"]
    project = tomllib.loads((made.folder / name / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == f"vcore-{name}"
    assert project["dependencies"] == [requirement()]
    assert project["entry-points"] == {"vcore": {name: f"vcore_{name}.plugin"}}
    assert (made.folder / name / "README.md").is_file()
    assert (made.site / f"vcore_{name}" / "py.typed").is_file()


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.1.0", "vcore-engine>=0.1,<1"),
        ("1.4.2", "vcore-engine>=1.4,<2"),
        ("0.2.0.dev3", "vcore-engine>=0.2.0.dev3,<1"),
    ],
)
def test_the_range_of_vcore_that_it_asks_for(version: str, expected: str) -> None:
    assert requirement(version) == expected


# What the command says


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["plugins", "new", "eviction_policy", "acme", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["kind"], printed["name"], printed["distribution"]) == ("eviction_policy", "acme", "vcore-acme")
    assert {Path(file) for file in printed["files"]} == {
        path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()
    }
    assert printed["next"] == [
        "pip install -e ./acme",
        "pytest ./acme",
        "vcore plugins check eviction_policy/acme",
        'vcore generate "Hello" --set cache.eviction=acme',
    ]


def test_one_file_is_all_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    into = tmp_path / "a b"
    assert run(["plugins", "new", "executor", "my-acme", "--one-file", "--into", str(into)]) == 0
    file = into / "my_acme.py"
    assert list(into.iterdir()) == [file]
    printed = capsys.readouterr().out
    assert f"wrote {file}\n" in printed
    assert f"vcore plugins check -p '{file}' executor/my-acme\n" in printed


def test_a_kind_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "new", "eviction", "acme"]) == 2
    assert "did you mean 'eviction_policy'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "Acme", "../acme", "_x", "a b", "auto"])
@pytest.mark.parametrize("form", [[], ["--one-file"]])
def test_a_name_that_no_plugin_may_have(
    name: str, form: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plugins", "new", "observer", name, "--into", str(tmp_path), *form]) == 2
    assert f"name={name!r}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", [[], ["--one-file"]])
def test_nothing_is_overwritten(form: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plugins", "new", "observer", "acme", "--into", str(tmp_path), *form]
    assert run(arguments) == 0
    [written] = tmp_path.iterdir()
    changed = written if written.is_file() else written / "README.md"
    changed.write_text("mine", encoding="utf-8")
    assert run(arguments) == 1
    assert f"{written} is there already" in capsys.readouterr().err
    assert changed.read_text(encoding="utf-8") == "mine"


def test_a_package_that_is_installed_is_not_hidden(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(made.site))
    name = made.names["model"]
    assert run(["plugins", "new", "observer", name, "--into", str(tmp_path)]) == 2
    assert f"'vcore_{name}', but one of that name is installed" in capsys.readouterr().err
    assert run(["plugins", "new", "observer", "engine", "--into", str(tmp_path)]) == 2
    assert "'vcore-engine'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# Names


@pytest.mark.parametrize(
    ("kind", "name", "distribution", "class_name", "file"),
    [
        ("eviction_policy", "mru", "vcore-mru", "MruEviction", "mru"),
        ("observer", "my-log.v2", "vcore-my-log-v2", "MyLogV2Observer", "my_log_v2"),
        ("observer", "vcore-x_", "vcore-x", "VcoreXObserver", "vcore_x"),
        ("executor", "2q", "vcore-2q", "My2qExecutor", "2q"),
        ("logits_processor", "logits", "vcore-logits", "MyLogitsProcessor", "logits"),
        ("observer", "json", "vcore-json", "JsonObserver", "json_plugin"),
        ("observer", "torch", "vcore-torch", "TorchObserver", "torch_plugin"),
        ("observer", "class", "vcore-class", "ClassObserver", "class_plugin"),
    ],
)
def test_names(kind: str, name: str, distribution: str, class_name: str, file: str) -> None:
    names = PluginNames(PluginKind(kind), name)
    found = (names.distribution, names.package, names.class_name, names.file)
    assert found == (distribution, distribution.replace("-", "_"), class_name, file)


def test_a_name_is_checked() -> None:
    with pytest.raises(ConfigError, match="name='A'"):
        PluginNames(PluginKind.MODEL, "A")


# Joining


def test_modules_are_joined_with_their_imports_merged() -> None:
    first = '"""A."""\n\nimport json\nfrom zlib import crc32\n\nfrom vcore.b import Second, FIRST\n\nclass A: ...\n'
    second = '"""B."""\n\nfrom vcore.b import third\n\nfrom own.a import A\n\nX = A()\n'
    expected = '"""C."""\n\nimport json\nfrom zlib import crc32\n\n'
    expected += "from vcore.b import FIRST, Second, third\n\n\nclass A: ...\n\n\nX = A()\n"
    assert join_modules("C.", "own", [first, second]) == expected


def test_the_templates_are_where_a_wheel_has_them() -> None:
    spec = importlib.util.find_spec("vcore.cli.new_plugin")
    assert spec is not None
    assert spec.origin is not None
    templates = Path(spec.origin).parent / "templates"
    assert {path.name for path in templates.iterdir() if path.is_dir()} == set(KINDS)
