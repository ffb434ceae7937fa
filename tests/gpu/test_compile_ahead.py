"""Kernels compiled before they are launched."""

from __future__ import annotations

import threading

import pytest
import torch

from vcore.ops.compile_ahead import compile_ahead

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")
compiled_ahead = pytest.importorskip("vcore.ops.triton.compile_ahead").compiled_ahead

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda:0")


def make_kernel():
    @triton.jit
    def add_kernel(x_ptr, number, BLOCK: tl.constexpr):
        places = tl.arange(0, BLOCK)
        tl.store(x_ptr + places, tl.load(x_ptr + places) + number)

    return add_kernel


def compiled(kernel) -> int:
    return len(kernel.device_caches[0][0])


def test_launches_within_compile_and_do_nothing_else() -> None:
    kernel, x = make_kernel(), torch.zeros(64, device=CUDA)
    with compiled_ahead(CUDA):
        for _ in range(3):
            kernel[(1,)](x, 5, BLOCK=64)
        kernel[(1,)](x, 5, BLOCK=32)
    assert not x.any()
    assert compiled(kernel) == 2
    kernel[(1,)](x, 5, BLOCK=64)
    assert compiled(kernel) == 2
    assert (x == 5).all()


def test_other_threads_launch_meanwhile() -> None:
    kernel, x = make_kernel(), torch.zeros(64, device=CUDA)

    def launch() -> None:
        kernel[(1,)](x, 5, BLOCK=64)
        torch.cuda.synchronize()

    with compiled_ahead(CUDA):
        thread = threading.Thread(target=launch)
        thread.start()
        thread.join()
    assert (x == 5).all()


def test_what_fails_is_left_for_the_launch() -> None:
    kernel, x = make_kernel(), torch.zeros(64, device=CUDA)

    def fail() -> None:
        kernel[(1,)](x, 5, BLOCK=63)  # no power of two
        raise RuntimeError("in the middle")

    compile_ahead(CUDA, fail)
    kernel[(1,)](x, 5, BLOCK=64)
    assert (x == 5).all()
    with pytest.raises(Exception, match="power of 2"):
        kernel[(1,)](x, 5, BLOCK=63)
