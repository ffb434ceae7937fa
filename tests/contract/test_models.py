"""Every architecture of every model plugin has a case in the folder ``models``.

To add an architecture: a module there, with a subclass of `vcore.testing.ModelContract` for each feature that a
checkpoint of it can have.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from vcore.config import PluginsConfig
from vcore.plugins import ModelSpec, PluginKind, discover
from vcore.testing import ModelContract

_FILES = sorted((Path(__file__).parent / "models").glob("test_*.py"))


def _cases(file: Path) -> Iterator[type[ModelContract]]:
    spec = importlib.util.spec_from_file_location(f"cases_of_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, found in inspect.getmembers(module, inspect.isclass):
        if name.startswith("Test") and issubclass(found, ModelContract):
            yield found


@pytest.fixture(scope="module")
def covered() -> set[str]:
    return {case.served_architecture() for file in _FILES for case in _cases(file)}


def test_every_architecture_has_a_case(covered: set[str]):
    entries = discover(PluginsConfig(allow=("vcore-engine",))).entries
    specs = [entry.spec for entry in entries if entry.kind is PluginKind.MODEL]
    served = {name for spec in specs if isinstance(spec, ModelSpec) for name in spec.architectures}
    assert served, "no model plugin is installed"
    assert not served - covered, f"tests/contract/models has no case of {', '.join(sorted(served - covered))}"
