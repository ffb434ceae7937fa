"""Every architecture of every model plugin has a case in the folder ``models``, and so has every feature it states.

To add an architecture: a module there, with a subclass of `vcore.testing.ModelContract` for each feature that a
checkpoint of it can have.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from vcore.config import PluginsConfig
from vcore.engine.outline import MetaModel, build_on_meta
from vcore.interfaces.hf_config import HFConfig
from vcore.plugins import Catalog, ModelSpec, PluginKind, discover
from vcore.plugins.specs import ANY_ARCHITECTURE
from vcore.testing import ModelContract

_FILES = sorted((Path(__file__).parent / "models").glob("test_*.py"))
_WATCHED = frozenset({"mla", "rope_scaling", "sliding_window", "soft_cap", "tensor_parallel", "tied_embeddings"})
"""Features that show in a case's config or in what its layers ask of a backend."""


def _cases_in(file: Path) -> Iterator[type[ModelContract]]:
    spec = importlib.util.spec_from_file_location(f"cases_of_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, found in inspect.getmembers(module, inspect.isclass):
        if name.startswith("Test") and issubclass(found, ModelContract):
            yield found


CASES = [case for file in _FILES for case in _cases_in(file)]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return discover(PluginsConfig(allow=("vcore-engine",)))


@pytest.fixture(scope="module")
def specs(catalog: Catalog) -> list[ModelSpec]:
    specs = [entry.spec for entry in catalog.entries if entry.kind is PluginKind.MODEL]
    return [spec for spec in specs if isinstance(spec, ModelSpec) and ANY_ARCHITECTURE not in spec.architectures]


def test_every_architecture_has_a_case(specs: list[ModelSpec]):
    served = {name for spec in specs for name in spec.architectures}
    covered = {case.served_architecture() for case in CASES}
    assert served, "no model plugin is installed"
    assert not served - covered, f"tests/contract/models has no case of {', '.join(sorted(served - covered))}"


def test_features_are_those_that_cases_have(catalog: Catalog, specs: list[ModelSpec]):
    """A feature that no case has is a claim; one that a case has and the spec does not state would not be listed."""
    stated = {spec.name: set(spec.features & _WATCHED) for spec in specs}
    shown: dict[str, set[str]] = {name: set() for name in stated}
    for case in CASES:
        entry = catalog.find_by_key(PluginKind.MODEL, case.served_architecture())
        config = HFConfig(case.make_config().to_dict())
        built = build_on_meta(catalog, entry, {}, config, dtype=torch.float32, max_model_len=case.max_model_len)
        assert built is not None
        shown[entry.name] |= _features(case, config, built)
    assert not {name: features - shown[name] for name, features in stated.items() if features - shown[name]}
    assert not {name: features - stated[name] for name, features in shown.items() if features - stated[name]}


def _features(case: type[ModelContract], config: HFConfig, built: MetaModel) -> set[str]:
    text = config.get("text_config") or config
    rope = text.get("rope_parameters") or {}
    ropes = [value for value in rope.values() if isinstance(value, Mapping)] or [rope]
    found: dict[str, Any] = {
        "rope_scaling": any(one.get("rope_type", "default") != "default" for one in ropes),
        "tensor_parallel": case.tensor_parallel,
        "tied_embeddings": text.get("tie_word_embeddings"),
    }
    return {name for name, is_there in found.items() if is_there} | (built.outline.features & _WATCHED)
