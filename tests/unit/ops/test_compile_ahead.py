"""Without a CUDA device or Triton nothing is computed ahead; what fails ahead fails nobody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from vcore.ops import compile_ahead as implementation
from vcore.ops.compile_ahead import AheadCompiler, compile_ahead

CUDA = torch.device("cuda:0")


def refuse() -> None:
    raise AssertionError("computed")


def test_nothing_on_a_cpu() -> None:
    compile_ahead(torch.device("cpu"), refuse)


def test_nothing_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError(name, name="triton")

    monkeypatch.setattr(implementation, "resolve_name", missing)
    compile_ahead(CUDA, refuse)


def test_nothing_with_a_triton_that_lacks_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError(name, name="triton.runtime.cache")

    monkeypatch.setattr(implementation, "resolve_name", missing)
    compile_ahead(CUDA, refuse)
    AheadCompiler(CUDA).run(refuse)


def test_another_missing_module_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError(name, name="vcore.ops.nothing")

    monkeypatch.setattr(implementation, "resolve_name", missing)
    with pytest.raises(ModuleNotFoundError):
        compile_ahead(CUDA, refuse)


def test_what_fails_ahead_is_left_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = []

    @contextmanager
    def compiled_ahead(device: torch.device, workers: None) -> Iterator[None]:
        entered.append(device)
        yield

    monkeypatch.setattr(implementation, "resolve_name", lambda name: compiled_ahead)
    compile_ahead(CUDA, refuse)
    assert entered == [CUDA]


class Workers:
    closed = 0

    def close(self) -> None:
        self.closed += 1


class Kernels:
    """Stands in for what is beside Triton's kernels."""

    def __init__(self) -> None:
        self.workers = Workers()
        self.compiled: list[Any] = []
        self.fails = False

    def resolve(self, name: str) -> Any:
        return getattr(self, name.rpartition(":")[2])

    def prepare(self, device: torch.device) -> Workers:
        assert device == CUDA
        if self.fails:
            raise RuntimeError("no driver")
        return self.workers

    @contextmanager
    def compiled_ahead(self, device: torch.device, workers: Workers | None) -> Iterator[None]:
        yield
        self.compiled.append(workers)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Kernels:
    kernels = Kernels()
    monkeypatch.setattr(implementation, "resolve_name", kernels.resolve)
    return kernels


def test_workers_help_once_and_are_given_up(kernels: Kernels) -> None:
    compiler, computed = AheadCompiler(CUDA), []
    for _ in range(2):
        compiler.run(lambda: computed.append(True))
    assert kernels.compiled == [kernels.workers, None]
    assert len(computed) == 2
    compiler.close()
    assert kernels.workers.closed == 1


def test_workers_are_given_up_by_who_compiles_nothing(kernels: Kernels) -> None:
    compiler = AheadCompiler(CUDA)
    compiler.close()
    compiler.close()
    assert kernels.workers.closed == 1
    assert not kernels.compiled


def test_what_cannot_be_prepared_is_done_without(kernels: Kernels) -> None:
    kernels.fails = True
    compiler = AheadCompiler(CUDA)
    compiler.run(lambda: None)
    assert kernels.compiled == [None]


def test_a_cpu_prepares_nothing(kernels: Kernels) -> None:
    compiler = AheadCompiler(torch.device("cpu"))
    compiler.run(refuse)
    compiler.close()
    assert not kernels.compiled
