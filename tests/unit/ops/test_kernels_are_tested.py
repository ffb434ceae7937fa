"""Every Triton kernel is within reach of tests that run on a CPU, under Triton's interpreter."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = {"vcore.": ROOT, "vcore_backends.": ROOT / "backends"}
TESTS = sorted((ROOT / "tests" / "gpu").glob("test_triton_*.py"))


def _is_interpreted(test: Path) -> bool:
    return "pytest.mark.interpreted" in test.read_text(encoding="utf-8")


def _file(module: str) -> Path | None:
    """Of a module of ours."""
    for prefix, root in SOURCES.items():
        path = root.joinpath(*module.split(".")).with_suffix(".py")
        if module.startswith(prefix) and path.is_file():
            return path
    return None


def _imports(path: Path) -> set[Path]:
    """Our files that a file imports."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {file for module in modules if (file := _file(module)) is not None}


@cache
def _reached() -> set[Path]:
    found: set[Path] = set()
    waiting = {file for test in TESTS if _is_interpreted(test) for file in _imports(test)}
    while waiting:
        found |= waiting
        waiting = {file for path in waiting for file in _imports(path)} - found
    return found


def _kernel_files() -> list[Path]:
    folders = (ROOT / "vcore", ROOT / "backends")
    files = [path for folder in folders for path in folder.rglob("*.py")]
    return sorted(path for path in files if "@triton.jit" in path.read_text(encoding="utf-8"))


def test_there_are_kernels():
    assert len(_kernel_files()) > 10


@pytest.mark.parametrize("path", _kernel_files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_test_that_runs_under_the_interpreter_imports_it(path: Path):
    assert path in _reached()


@pytest.mark.parametrize("test", TESTS, ids=lambda path: path.name)
def test_what_reads_triton_interpret_is_marked(test: Path):
    if "TRITON_INTERPRET" in test.read_text(encoding="utf-8"):
        assert _is_interpreted(test)
