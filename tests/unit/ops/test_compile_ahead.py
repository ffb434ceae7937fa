"""Without a CUDA device or Triton nothing is computed ahead; what fails ahead fails nobody."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from vcore.ops import compile_ahead as implementation
from vcore.ops.compile_ahead import compile_ahead

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


def test_another_missing_module_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError(name, name="vcore.ops.nothing")

    monkeypatch.setattr(implementation, "resolve_name", missing)
    with pytest.raises(ModuleNotFoundError):
        compile_ahead(CUDA, refuse)


def test_what_fails_ahead_is_left_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = []

    @contextmanager
    def compiled_ahead(device: torch.device):
        entered.append(device)
        yield

    monkeypatch.setattr(implementation, "resolve_name", lambda name: compiled_ahead)
    compile_ahead(CUDA, refuse)
    assert entered == [CUDA]
