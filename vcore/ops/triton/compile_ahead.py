"""Kernels compiled in threads: what takes the time is LLVM, the assembler and the compiler of C, outside Python."""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from triton import AsyncCompileMode
from triton.runtime.jit import KernelInterface

__all__ = ["compiled_ahead"]

_MAX_THREADS = 16


@contextmanager
def compiled_ahead(device: torch.device) -> Iterator[None]:
    """Within it, this thread's launches compile for `device` and launch nothing; at its end all is compiled and loaded.

    Other threads launch as ever. Kernels that do not compile fail when they are launched.
    """
    found: list[Any] = []
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        with AsyncCompileMode(pool, ignore_errors=True), _collecting(found):
            yield

        def load(kernel: Any) -> None:
            torch.cuda.set_device(device)
            kernel = kernel.result(ignore_errors=True) if hasattr(kernel, "result") else kernel
            if kernel is not None:
                _ = kernel.run  # builds its launcher and puts it on the device

        # The same kernel comes once a layer.
        list(pool.map(load, {id(kernel): kernel for kernel in found}.values()))


@contextmanager
def _collecting(found: list[Any]) -> Iterator[None]:
    """Let this thread's launches only ask for the kernel."""
    launching, owner = KernelInterface.__getitem__, threading.get_ident()

    def asking(kernel: Any, grid: Any) -> Callable[..., None]:
        if threading.get_ident() != owner:
            launch: Callable[..., None] = launching(kernel, grid)
            return launch

        def ask(*args: Any, **kwargs: Any) -> None:
            found.append(kernel.run(*args, grid=grid, warmup=True, **kwargs))

        return ask

    KernelInterface.__getitem__ = asking
    try:
        yield
    finally:
        KernelInterface.__getitem__ = launching
