"""`quick_jit`: Triton kernels that take the host less to launch again.

Triton binds, inspects and looks up every argument anew in each launch: 22 to 27 us of a host beside an H100, where the
launch itself takes 7 to 9. A kernel made here remembers, by all that its specialisation may depend on, what was
compiled, and passes pointers instead of tensors. For kernels that are launched outside CUDA graphs, layer after layer.
"""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator,misc"
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import triton
from triton import knobs
from triton.runtime.jit import JITFunction

__all__ = ["QuickKernel", "quick_jit"]

_KNOWN_VERSIONS = ("3.6.",)
"""Of Triton: what its launcher takes is not public, and was tested with these. With others, `triton.jit` serves."""
_MOST_LAUNCHES = 4096
"""Kinds of launches that a kernel remembers; numbers that change from step to step, and that Triton is to specialise
on, make new ones."""
_INT32 = range(-(2**31), 2**31)
"""Larger numbers are of another type."""


def quick_jit(
    function: Any = None,
    *,
    do_not_specialize: Iterable[str] = (),
    do_not_specialize_on_alignment: Iterable[str] = (),
) -> Any:
    """As `triton.jit`. In each launch, parameters that are no constexpr are given by position, the others by keyword;
    each parameter has one type.

    Args:
        function: the kernel.
        do_not_specialize: parameters, integers, of which no multiple of 16 and no 1 gets a kernel of its own.
        do_not_specialize_on_alignment: parameters, pointers, of which no multiple of 16 does.
    """
    names = {
        "do_not_specialize": list(do_not_specialize),
        "do_not_specialize_on_alignment": list(do_not_specialize_on_alignment),
    }

    def make(function: Callable[..., None]) -> Any:
        if knobs.runtime.interpret or not triton.__version__.startswith(_KNOWN_VERSIONS):
            return triton.jit(function, **names)
        return QuickKernel(function, **names)

    return make if function is None else make(function)


class QuickKernel(JITFunction):
    """A kernel whose first launch of a kind goes through Triton, and later ones straight to what was compiled."""

    def __init__(
        self,
        function: Callable[..., None],
        *,
        do_not_specialize: list[str],
        do_not_specialize_on_alignment: list[str],
    ) -> None:
        super().__init__(
            function,
            do_not_specialize=do_not_specialize,
            do_not_specialize_on_alignment=do_not_specialize_on_alignment,
        )
        self._alike = [
            parameter.do_not_specialize or parameter.do_not_specialize_on_alignment for parameter in self.params
        ]
        """Of each parameter, whether all of its values are of one kind, as far as their type is the same."""
        self._launches: dict[tuple[Any, ...], tuple[Any, Any, Any, tuple[Any, ...]]] = {}
        """By kind: the launcher, what it takes of the compiled kernel, and the parameters given by keyword."""

    def run(self, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        """Launch on the current device and stream."""
        runtime = knobs.runtime
        if warmup or self.pre_run_hooks or runtime.launch_enter_hook.calls or runtime.launch_exit_hook.calls:
            return super().run(*args, grid=grid, warmup=warmup, **kwargs)
        device = torch._C._cuda_getDevice()
        kind: list[Any] = [device, *kwargs.items()]
        values: list[Any] = []
        for arg, alike in zip(args, self._alike, strict=False):
            if isinstance(arg, torch.Tensor):
                arg_pointer = arg.data_ptr()
                values.append(arg_pointer)
                kind.append((arg.dtype, 0 if alike else arg_pointer & 15))
            else:
                values.append(arg)
                kind.append(int if alike and arg.__class__ is int and arg in _INT32 else arg)
        key = tuple(kind)
        known = self._launches.get(key)
        if known is None:
            return self._launch_first(key, args, grid, kwargs)
        launch, function, metadata, rest = known
        grid_0, grid_1, grid_2 = (*grid, 1, 1)[:3]
        stream = torch._C._cuda_getCurrentRawStream(device)
        launch(grid_0, grid_1, grid_2, stream, function, metadata, None, None, None, *values, *rest)
        return None

    def _launch_first(self, key: tuple[Any, ...], args: tuple[Any, ...], grid: Any, kwargs: dict[str, Any]) -> Any:
        compiled = super().run(*args, grid=grid, warmup=False, **kwargs)
        if compiled is None:  # a hook of Triton's took the launch
            return None
        by_keyword = self.params[len(args) :]
        assert all(parameter.is_constexpr for parameter in by_keyword), "give by position what is no constexpr"
        rest = tuple(kwargs.get(parameter.name, parameter.default) for parameter in by_keyword)
        if len(self._launches) >= _MOST_LAUNCHES:
            self._launches.clear()
        self._launches[key] = (compiled.run, compiled.function, compiled.packed_metadata, rest)
        return compiled
