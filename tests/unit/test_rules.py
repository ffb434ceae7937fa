"""The rules that hold for the whole tree: who may import whom, what is registered, what is public."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import vcore

ROOT = Path(__file__).resolve().parents[2]
PLUGIN_PACKAGES = ("vcore_model_zoo", "vcore_backends", "vcore_policies")
SOURCE_ROOTS = ("model_zoo", "backends", "policies")


def core_files() -> list[Path]:
    return sorted((ROOT / "vcore").rglob("*.py"))


def entry_points() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return dict(project["project"]["entry-points"]["vcore"])


@pytest.mark.parametrize("path", core_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_neither_imports_nor_names_a_plugin_package(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not [name for name in PLUGIN_PACKAGES if name in text]


def test_every_plugin_module_has_an_entry_point_and_every_entry_point_a_module() -> None:
    modules = {
        ".".join(path.relative_to(ROOT / root).with_suffix("").parts)
        for root in SOURCE_ROOTS
        for path in (ROOT / root).rglob("plugin.py")
    } | {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "vcore").glob("*/plugin.py")}
    assert modules == set(entry_points().values())


def test_every_direct_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras, named = project["optional-dependencies"], ["test"]
    wanted = {Requirement(line).name for line in project["dependencies"]}
    for extra in named:  # an extra may name others, as vcore-engine[...]
        for requirement in map(Requirement, extras[extra]):
            if requirement.name == project["name"]:
                named.extend(requirement.extras)
            else:
                wanted.add(requirement.name)
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert wanted <= {pin.name for pin in pins}
    assert [str(pin) for pin in pins if not str(pin.specifier).startswith("==")] == []
    assert "torch==2.13.0" in lines


def test_no_package_stands_at_the_top_of_a_source_root() -> None:
    assert not [root for root in (*SOURCE_ROOTS, "plugins") if (ROOT / root / "__init__.py").exists()]


def test_registration_modules_import_no_torch() -> None:
    script = "import importlib, sys\n" + "".join(
        f"importlib.import_module({module!r})\n" for module in entry_points().values()
    )
    script += (
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'transformers', 'triton', 'gguf'}))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name",
    sorted(module.name for module in pkgutil.walk_packages(vcore.__path__, "vcore.") if "__main__" not in module.name),
)
def test_modules_say_what_is_public(name: str) -> None:
    if name.startswith("vcore.ops.triton."):
        pytest.importorskip("triton")
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public), f"{name}.__all__ has {public!r}, which it does not define"


@pytest.mark.parametrize("path", core_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_public_names_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not tree.body:
        return
    assert ast.get_docstring(tree), "the module has no docstring"
    lacking = [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert not lacking


def test_top_level_names() -> None:
    assert {"LLM", "SamplingParams", "EngineConfig", "RequestOutput", "__version__"} <= set(vcore.__all__)
    for name in vcore.__all__:
        assert getattr(vcore, name) is not None
    with pytest.raises(AttributeError, match="LLM"):
        _ = vcore.Llm  # type: ignore[attr-defined]
