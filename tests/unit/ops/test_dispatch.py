"""`Op` chooses between the reference and a device's kernel."""

from __future__ import annotations

import sys
import types

import pytest
import torch

from vcore.ops import op


@pytest.fixture
def kernel_module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("kernels_of_a_test")
    module.fused = lambda x, factor: ("fused", factor)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_the_kernel_of_the_device_stands_in_for_the_reference(kernel_module: types.ModuleType):
    @op(cpu="kernels_of_a_test:fused")
    def scale(x: torch.Tensor, factor: int) -> object:
        return "reference", factor

    assert scale(torch.ones(1), 2) == ("fused", 2)
    assert scale(torch.ones(1), factor=3) == ("fused", 3)
    assert scale.reference(torch.ones(1), 2) == ("reference", 2)


def test_other_devices_get_the_reference(kernel_module: types.ModuleType):
    @op(cpu="kernels_of_a_test:fused")
    def scale(x: torch.Tensor, factor: int) -> object:
        return "reference", factor

    assert scale(torch.ones(1, device="meta"), 2) == ("reference", 2)


def test_a_kernel_is_not_imported_for_another_device():
    @op(cuda="a_module_that_is_not_there:fused")
    def double(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    assert double(torch.ones(1)).item() == 2


def test_an_op_keeps_the_name_and_docstring_of_its_reference():
    @op()
    def double(x: torch.Tensor) -> torch.Tensor:
        """Twice."""
        return 2 * x

    assert double.__name__ == "double"
    assert double.__doc__ == "Twice."
