"""A process that compiles kernels into Triton's cache, in as many copies as it is told: see `CompileWorkers`.

It needs no device, and touches none. `run_compile_worker` starts it.
"""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.driver import CudaLauncher
from triton.runtime import driver
from triton.runtime.cache import triton_key

from vcore.ops.triton import quick_jit  # noqa: F401  # imported once for all copies

__all__ = ["MOST_BYTES", "compile_kernel", "serve", "work"]

MOST_BYTES = 1 << 17
"""Of a message."""


class _NoDevice:
    """What Triton asks a driver when it compiles."""

    def __init__(self, target: GPUTarget) -> None:
        self._target = target

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0


def compile_kernel(module: str, name: str, specialization: str, target: Sequence[str | int]) -> None:
    """Compile a kernel, and its launcher, into the cache.

    Args:
        module: where the kernel is.
        name: its name there.
        specialization: as Triton tells its hooks.
        target: backend, architecture and threads a warp.
    """
    driver.set_active(_NoDevice(GPUTarget(*target)))
    kernel = getattr(import_module(module), name).preload(specialization)
    with suppress(ImportError, OSError):  # the driver's library may be missing where there is no device
        CudaLauncher(kernel.src, kernel.metadata)


def serve(connection: socket.socket) -> None:
    """Say that there is one more who works, then answer each request with its number, done or not, until the end."""
    connection.send(b"0")
    while request := connection.recv(MOST_BYTES):
        number, *kernel = json.loads(request)
        with suppress(Exception):  # who asked finds nothing in the cache, compiles for himself and learns why
            compile_kernel(*kernel)
        connection.send(str(number).encode())


def work(descriptor: int, count: int) -> None:
    """Serve at a socket, in so many copies of this process, until nobody is at its other end."""
    connection = socket.socket(fileno=descriptor)
    triton_key()  # reads all of Triton
    for _ in range(count):
        if os.fork() == 0:
            try:
                with suppress(OSError):  # nobody is there any more
                    serve(connection)
            finally:
                os._exit(0)
    connection.close()
    for _ in range(count):
        os.wait()
