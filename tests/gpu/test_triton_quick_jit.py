"""Kernels that remember what was compiled: the results are Triton's, and Triton is asked once a kind of launch."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from triton import knobs
from triton.runtime.jit import JITFunction

from vcore.ops.triton.quick_jit import QuickKernel, quick_jit

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"


@quick_jit(do_not_specialize=["count"])
def scale_kernel(out_ptr, x_ptr, bias_ptr, factor, count, stride, BLOCK: tl.constexpr, NEGATE: tl.constexpr = False):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    result = tl.load(x_ptr + at * stride, mask=at < count, other=0).to(tl.float32) * factor
    if bias_ptr is not None:
        result += tl.load(bias_ptr + at, mask=at < count, other=0).to(tl.float32)
    if NEGATE:
        result = -result
    tl.store(out_ptr + at, result.to(out_ptr.dtype.element_ty), mask=at < count)


def check(x: torch.Tensor, bias: torch.Tensor | None = None, factor: float = 2.5, **constexprs: bool) -> None:
    count = x.shape[0]
    out = torch.zeros(count + 8, dtype=x.dtype, device=DEVICE)
    scale_kernel[(triton.cdiv(count, 16),)](out, x, bias, factor, count, x.stride(0), BLOCK=16, **constexprs)
    expected = x.float() * factor + (0.0 if bias is None else bias.float())
    torch.testing.assert_close(out[:count].float(), -expected if constexprs.get("NEGATE") else expected)
    assert not out[count:].any()


def numbers(count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.arange(1.0, count + 1, device=DEVICE).to(dtype)


CASES: list[tuple[str, Any]] = [
    ("plain", lambda: check(numbers(64))),
    ("another length", lambda: check(numbers(37))),
    ("other strides", lambda: (check(numbers(64)[::2]), check(numbers(640)[::16]), check(numbers(96)[::3]))),
    ("another alignment", lambda: (check(numbers(65)[1:]), check(numbers(64)))),
    ("another dtype", lambda: (check(numbers(64, torch.float16)), check(numbers(64)))),
    ("with a bias", lambda: (check(numbers(40), numbers(40)), check(numbers(40)), check(numbers(40), numbers(40)))),
    ("another factor", lambda: (check(numbers(40), factor=-1.0), check(numbers(40), factor=0.5))),
    ("constexprs", lambda: (check(numbers(40), NEGATE=True), check(numbers(40), NEGATE=False), check(numbers(40)))),
]


@pytest.mark.gpu
@pytest.mark.interpreted
@pytest.mark.parametrize("case", [case for _, case in CASES], ids=[name for name, _ in CASES])
def test_every_kind_of_launch_computes_what_it_is_given(case: Any) -> None:
    for _ in range(2):
        case()


@pytest.mark.gpu
def test_triton_is_asked_once_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, run = [], JITFunction.run
    monkeypatch.setattr(JITFunction, "run", lambda self, *a, **k: asked.append(self) or run(self, *a, **k))
    x, bias = numbers(200), numbers(200)
    scale_kernel._launches.clear()
    for _ in range(3):
        check(x)
        check(x, bias)
        check(x[:50])  # another number that Triton is not to specialise on is no kind of its own
        check(x[1:])
    assert len(asked) == 3
    hook_calls: list[Any] = []
    knobs.runtime.launch_enter_hook.add(hook_calls.append)
    try:
        check(x)  # a profiler's hook sees every launch
    finally:
        knobs.runtime.launch_enter_hook.remove(hook_calls.append)
    assert hook_calls


@pytest.mark.gpu
def test_a_graph_captures_a_remembered_launch() -> None:
    x, out = numbers(64), torch.zeros(64, device=DEVICE)

    def launch() -> None:
        scale_kernel[(4,)](out, x, None, 3.0, 64, 1, BLOCK=16)

    launch()
    launch()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch()
    out.zero_()
    x.add_(1.0)
    graph.replay()
    torch.testing.assert_close(out, x * 3.0)


@quick_jit(do_not_specialize_on_alignment=["factor_ptr"])
def scale_by_one_kernel(out_ptr, x_ptr, factor_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out_ptr + at, tl.load(x_ptr + at) * tl.load(factor_ptr))


@pytest.mark.gpu
@pytest.mark.interpreted
def test_a_pointer_to_one_number_may_point_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    if not INTERPRETED:
        run = JITFunction.run
        monkeypatch.setattr(JITFunction, "run", lambda self, *a, **k: asked.append(self) or run(self, *a, **k))
    x, factors = numbers(16), numbers(7)
    for index in range(7):
        out = torch.zeros(16, device=DEVICE)
        scale_by_one_kernel[(1,)](out, x, factors[index:], BLOCK=16)
        torch.testing.assert_close(out, x * (index + 1))
    assert INTERPRETED or len(asked) == 1
    assert INTERPRETED or len(scale_by_one_kernel.device_caches[0][0]) == 1


def copy_kernel(out_ptr, x_ptr):
    tl.store(out_ptr, tl.load(x_ptr))


@pytest.mark.gpu
@pytest.mark.interpreted
@pytest.mark.parametrize(("version", "kind"), [("3.6.0", QuickKernel), ("3.9.0", JITFunction), ("4.0.0", JITFunction)])
def test_only_launchers_that_are_known_are_called_past_triton(
    monkeypatch: pytest.MonkeyPatch, version: str, kind: type
) -> None:
    monkeypatch.setattr(knobs.runtime, "interpret", False)
    monkeypatch.setattr(triton, "__version__", version)
    assert type(quick_jit(copy_kernel)) is kind


@pytest.mark.gpu
@pytest.mark.interpreted
def test_memory_of_launches_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcore.ops.triton.quick_jit._MOST_LAUNCHES", 3)
    for factor in range(1, 9):
        check(numbers(9), factor=factor / 2)
    assert INTERPRETED or len(scale_kernel._launches) <= 3
    assert isinstance(scale_kernel, QuickKernel) != INTERPRETED
