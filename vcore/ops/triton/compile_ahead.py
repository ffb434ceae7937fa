"""Kernels compiled in threads and processes: what takes the time is LLVM, the assembler and the compiler of C.

First all launches are noted, then threads compile what they need. At the same time would take longer: the interpreter
is given up in nearly every call of torch's, and among threads that compile it comes back after some turns of 5 ms.
Other processes may begin at once.
"""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import logging
import os
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

import torch
from triton import AsyncCompileMode, knobs
from triton.runtime import driver
from triton.runtime.cache import triton_key
from triton.runtime.jit import KernelInterface

from vcore.ops.triton.compile_workers import CompileWorkers, KernelRequest, cache_is_empty

__all__ = ["compiled_ahead", "prepare"]

logger = logging.getLogger(__name__)

_MAX_THREADS = 16
_THREADS_BESIDE_WORKERS = 8
_FINISHING_THREADS = 4


def prepare(device: torch.device) -> CompileWorkers | None:
    """What `compiled_ahead` needs, begun early: workers, if there will be much to compile."""
    workers = None
    if cache_is_empty():
        try:
            workers = CompileWorkers()
        except OSError:
            logger.debug("kernels are compiled in threads alone", exc_info=True)
    try:
        if device.index is not None:
            torch.cuda.set_device(device)
        driver.active.get_current_target()  # compiles Triton's driver
        triton_key()  # reads all of Triton
    except BaseException:
        if workers is not None:
            workers.close()
        raise
    return workers


@contextmanager
def compiled_ahead(device: torch.device, workers: CompileWorkers | None = None) -> Iterator[None]:
    """Within it, this thread's launches are noted and launch nothing; at its end all is compiled and on `device`.

    Other threads launch as ever. Kernels that do not compile fail when they are launched. `workers` help, if there are
    some.
    """
    compilations = _Compilations(device, workers)
    with AsyncCompileMode(compilations, ignore_errors=True):
        try:
            with _noting(), compilations.told_of_kernels():
                compilations.begin()
                yield
        finally:
            compilations.run()


@dataclass(slots=True)
class _Job:
    """A kernel to compile."""

    compile_here: Callable[[], Any]
    """Or find it in the cache."""
    future: Future[Any]
    request: KernelRequest
    size: int
    """The longer a kernel's source, the longer it takes."""


class _Compilations(Executor):
    """What is submitted waits for `run`, or for workers, if there are some."""

    def __init__(self, device: torch.device, workers: CompileWorkers | None) -> None:
        self._device = device
        self._workers = workers
        self._jobs: deque[_Job] = deque()
        self._all_there = threading.Event()
        """Whether nothing more will be submitted."""
        self._has_begun = False
        self._answered: SimpleQueue[_Job | None] = SimpleQueue()
        """What the workers are through with; None when they take no more."""
        self._request: tuple[KernelRequest, int] | None = None
        """Of the next that is submitted, and the length of its source."""
        self._launchers: defaultdict[tuple[Any, ...], threading.Lock] = defaultdict(threading.Lock)
        """By the types of a kernel's parameters, which its launcher is made for."""

    @contextmanager
    def told_of_kernels(self) -> Iterator[None]:
        """Within it, Triton says of each kernel what it is before it submits it."""
        before = knobs.runtime.jit_cache_hook
        target = driver.active.get_current_target()

        def hook(**told: Any) -> bool | None:
            kernel, specialization = told["fn"], told["compile"]["specialization_data"]
            where = (target.backend, target.arch, target.warp_size)
            request = KernelRequest(kernel.module, kernel.name, specialization, where)
            self._request = request, len(kernel.jit_function.src)
            taken: bool | None = before(**told) if before else None
            return taken

        knobs.runtime.jit_cache_hook = hook
        try:
            yield
        finally:
            knobs.runtime.jit_cache_hook = before

    def submit(self, compile_here: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Note it."""
        assert self._request is not None
        self._jobs.append(_Job(partial(compile_here, *args, **kwargs), Future(), *self._request))
        return self._jobs[-1].future

    def begin(self) -> None:
        """Let the workers begin."""
        if self._workers is not None:
            self._has_begun = True
            threading.Thread(target=self._delegate, args=(self._workers,)).start()

    def _delegate(self, workers: CompileWorkers) -> None:
        try:
            workers.work_on(self._jobs, lambda job: job.request, self._answered.put, self._all_there.is_set)
        finally:
            self._answered.put(None)

    def run(self) -> None:
        """Carry all of it out, what takes the longest first, and load what it gives."""
        waiting = []
        with suppress(IndexError):
            while True:
                waiting.append(self._jobs.popleft())
        self._jobs.extend(sorted(waiting, key=lambda job: job.size, reverse=True))
        self._all_there.set()
        processors = os.cpu_count() or 1
        with ThreadPoolExecutor(min(_MAX_THREADS, processors) + _FINISHING_THREADS) as pool:
            if self._workers is not None and self._has_begun:
                for _ in range(min(_THREADS_BESIDE_WORKERS, processors)):
                    pool.submit(self._work_until_there_are, self._workers)
                while (job := self._answered.get()) is not None:
                    pool.submit(self._finish, job)
            for _ in range(min(_MAX_THREADS, processors)):
                pool.submit(self._work)

    def _work_until_there_are(self, workers: CompileWorkers) -> None:
        """Beside them, threads would only slow down each other."""
        with suppress(IndexError):
            while not workers.are_there:
                self._finish(self._jobs.popleft())

    def _work(self) -> None:
        with suppress(IndexError):
            while True:
                self._finish(self._jobs.popleft())

    def _finish(self, job: _Job) -> None:
        try:
            kernel = job.compile_here()
        except BaseException as error:
            job.future.set_exception(error)
            return
        with suppress(Exception):  # what cannot be loaded says so again when it is launched
            torch.cuda.set_device(self._device)
            # Launchers of kernels that take the same types are one: the second finds it made.
            with self._launchers[tuple(map(str, kernel.src.signature.values()))]:
                _ = kernel.run  # builds its launcher and puts it on the device
        job.future.set_result(kernel)


@contextmanager
def _noting() -> Iterator[None]:
    """Let this thread's launches only ask for the kernel."""
    launching, owner = KernelInterface.__getitem__, threading.get_ident()
    asked: set[int] = set()
    is_over = False

    def asking(kernel: Any, grid: Any) -> Callable[..., None]:
        # Over, and yet called: another thread began to note before this one ended, and then put this back.
        if is_over or threading.get_ident() != owner:
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
        is_over = True
        KernelInterface.__getitem__ = launching
