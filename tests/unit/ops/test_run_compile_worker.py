"""What stands where torch would be: enough for modules of kernels to be imported, and nothing else."""

from __future__ import annotations

from abc import ABC

import pytest

from vcore.ops.triton.run_compile_worker import NoTorch


def test_torch_is_found_with_all_within_and_means_nothing() -> None:
    finder = NoTorch()
    assert finder.find_spec("numpy") is None
    assert finder.find_spec("torchvision") is None
    spec = finder.find_spec("torch.nn.functional")
    assert spec is not None
    module = finder.create_module(spec)
    finder.exec_module(module)
    assert module.__name__ == "torch.nn.functional"

    class Layer(module.Module, ABC):
        dtypes = frozenset({module.bfloat16, module.float16})

    @module.inference_mode()
    def compute() -> int:
        return 7

    assert compute() == 7
    assert isinstance(Layer(3), Layer)
    assert module.library.Library("vcore", "FRAGMENT").define is not None
    for where in (module, module.Tensor, Layer()):
        with pytest.raises(AttributeError):
            where.__wrapped__  # noqa: B018
