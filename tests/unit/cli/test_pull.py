"""``vcore pull``: what it prints, where it looks, what it makes ready."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vcore.cli.main import run

SOURCE = '''
"""A source and a loader of one file."""
from pathlib import Path
from vcore.errors import UnsupportedModelError
from vcore.interfaces.sources import ModelLicence, ModelSource
from vcore.interfaces.weights import CheckpointReader, WeightLoader
from vcore.plugins import ModelSourceSpec, WeightLoaderSpec, hookimpl


class Source(ModelSource):
    def __init__(self, *, options, context):
        self.context = context

    def fetch(self, name, *, from_file=None):
        folder = self.context.cache_dir / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.mine").write_text(f"{from_file} {self.context.offline}")
        self.context.progress("fetching", 1, 2)
        return folder

    def licence(self, name):
        if name != "guarded":
            return None
        return ModelLicence(name="Own Terms", url="https://example.org/terms", file="TERMS")


class Reader(CheckpointReader):
    def tensors(self):
        return {}

    def read(self, name, shape, index=None):
        raise NotImplementedError


class Loader(WeightLoader):
    def __init__(self, *, options, context):
        self.path = context.path

    def config(self):
        raise NotImplementedError

    def open(self):
        if "strange" in self.path.name:
            raise UnsupportedModelError("not this one")
        (self.path / "ready").touch()
        return Reader()


@hookimpl
def vcore_model_sources():
    models = ("guarded", "own", "strange")
    return [ModelSourceSpec(name="mine", load=Source, api="1.0", schemes=("mine",), models=models)]


@hookimpl
def vcore_weight_loaders():
    return [WeightLoaderSpec(name="mine", load=Loader, api="1.0", formats=("mine",), suffixes=(".mine",))]
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A plugin's file; the user's cache is in `tmp_path`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "mine.py"
    path.write_text(SOURCE, encoding="utf-8")
    return str(path)


def folder(tmp_path: Path, name: str = "own") -> Path:
    return tmp_path / "cache" / "vcore" / "models" / name


def test_the_folder_is_printed(plugin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pull", "own", "-p", plugin]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{folder(tmp_path)}\n"
    assert "fetching" not in printed.err  # which is no terminal


def test_the_model_is_made_ready(plugin: str, tmp_path: Path) -> None:
    assert run(["pull", "own", "-p", plugin, "--download-only"]) == 0
    assert not (folder(tmp_path) / "ready").exists()
    assert run(["pull", "own", "-p", plugin]) == 0
    assert (folder(tmp_path) / "ready").exists()


def test_a_model_that_cannot_be_loaded_is_fetched_all_the_same(
    plugin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pull", "strange", "-p", plugin]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{folder(tmp_path, 'strange')}\n"
    assert "warning: fetched, but it cannot be loaded: not this one" in printed.err


def test_json_is_one_object(plugin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pull", "mine://own", "-p", plugin, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "name": "mine://own",
        "path": str(folder(tmp_path)),
        "source": f"model_source/mine@{Path(plugin).name}",
        "licence": None,
    }


def test_terms_of_their_own_are_named(plugin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pull", "guarded", "-p", plugin]) == 0
    printed = capsys.readouterr()
    copy = folder(tmp_path, "guarded") / "TERMS"
    assert printed.out == f"{folder(tmp_path, 'guarded')}\n"
    assert f"the Own Terms: https://example.org/terms, a copy of which is {copy}" in printed.err
    assert run(["pull", "own", "-p", plugin]) == 0
    assert "note:" not in capsys.readouterr().err


def test_terms_stand_in_the_json(plugin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pull", "guarded", "-p", plugin, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["licence"] == {
        "name": "Own Terms",
        "url": "https://example.org/terms",
        "file": str(folder(tmp_path, "guarded") / "TERMS"),
    }


def test_options_reach_the_source(plugin: str, tmp_path: Path) -> None:
    arguments = ["pull", "own", "-p", plugin, "--from", "x.whl", "--set", "model.offline=true"]
    assert run(arguments) == 0
    assert (folder(tmp_path) / "own.mine").read_text(encoding="utf-8") == "x.whl True"


def test_without_a_name_it_lists_what_can_be_pulled(plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pull", "-p", plugin]) == 0
    printed = capsys.readouterr().out
    for fragment in ("smollm2-135m", "guarded, own, strange, mine://NAME", "hf://NAME"):
        assert fragment in printed


def test_the_list_as_json(plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pull", "-p", plugin, "--json"]) == 0
    listing = json.loads(capsys.readouterr().out)
    assert {"own", "smollm2-135m", "strange"} <= set(listing["models"])
    assert {"name", "distribution", "summary", "models", "schemes", "pattern"} == set(listing["sources"][0])


def test_a_name_that_nobody_knows(plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pull", "smollm2-135", "-p", plugin]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "error: " in printed.err
    assert "smollm2-135m" in printed.err
