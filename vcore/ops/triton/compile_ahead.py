"""Kernels compiled in threads: what takes the time is LLVM, the assembler and the compiler of C, outside Python.

First all launches are noted, then all that they need is compiled. At the same time would take longer: the interpreter
is given up in nearly every call of torch's, and among threads that compile it comes back after some turns of 5 ms.
"""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from triton import AsyncCompileMode
from triton.runtime.jit import KernelInterface

__all__ = ["compiled_ahead"]

_MAX_THREADS = 16


@contextmanager
def compiled_ahead(device: torch.device) -> Iterator[None]:
    """Within it, this thread's launches are noted and launch nothing; at its end all is compiled and on `device`.

    Other threads launch as ever. Kernels that do not compile fail when they are launched.
    """
    compilations = _Compilations()
    with AsyncCompileMode(compilations, ignore_errors=True):
        try:
            with _noting():
                yield
        finally:
            compilations.run(device)


class _Compilations(Executor):
    """What is submitted waits for `run`."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._launchers: defaultdict[tuple[Any, ...], threading.Lock] = defaultdict(threading.Lock)
        """By the types of a kernel's parameters, which its launcher is made for."""

    def submit(self, compile_kernel: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Note it."""
        future: Future[Any] = Future()
        self._waiting.append((partial(compile_kernel, *args, **kwargs), future))
        return future

    def run(self, device: torch.device) -> None:
        """Carry all of it out, and load what it gives."""
        with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
            list(pool.map(lambda waiting: self._run(device, *waiting), self._waiting))
        self._waiting.clear()

    def _run(self, device: torch.device, compile_kernel: Callable[[], Any], future: Future[Any]) -> None:
        try:
            kernel = compile_kernel()
        except BaseException as error:
            future.set_exception(error)
            return
        with suppress(Exception):  # what cannot be loaded says so again when it is launched
            torch.cuda.set_device(device)
            # Launchers of kernels that take the same types are one: the second finds it made.
            with self._launchers[tuple(map(str, kernel.src.signature.values()))]:
                _ = kernel.run  # builds its launcher and puts it on the device
        future.set_result(kernel)


@contextmanager
def _noting() -> Iterator[None]:
    """Let this thread's launches only ask for the kernel."""
    launching, owner = KernelInterface.__getitem__, threading.get_ident()
    asked: set[int] = set()

    def asking(kernel: Any, grid: Any) -> Callable[..., None]:
        if threading.get_ident() != owner:
            launch: Callable[..., None] = launching(kernel, grid)
            return launch

        def ask(*args: Any, **kwargs: Any) -> None:
            found = kernel.run(*args, grid=grid, warmup=True, **kwargs)
            # The same kernel comes once a layer: from now on it is found as fast as one that is compiled.
            if hasattr(found, "finalize_compile") and id(found) not in asked:
                asked.add(id(found))
                found.finalize_compile(found)

        return ask

    KernelInterface.__getitem__ = asking
    try:
        yield
    finally:
        KernelInterface.__getitem__ = launching
