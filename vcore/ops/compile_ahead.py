"""Compiling the kernels that a computation will launch before it launches any, several at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pkgutil import resolve_name
from typing import Any

import torch

__all__ = ["AheadCompiler", "compile_ahead"]

logger = logging.getLogger(__name__)


class AheadCompiler:
    """Gets ready in the background, then compiles once. Does nothing where there is no Triton, or no CUDA device."""

    def __init__(self, device: torch.device) -> None:
        """Begin to get ready; nothing waits for it.

        Args:
            device: where kernels will be launched.
        """
        self._device = device
        self._workers: Future[Any] | None = None
        if device.type == "cuda" and (prepare := _found("prepare")) is not None:
            thread = ThreadPoolExecutor(1)
            self._workers = thread.submit(prepare, device)
            thread.shutdown(wait=False)

    def run(self, compute: Callable[[], object]) -> None:
        """As `compile_ahead`. What got ready for it is given up afterwards."""
        workers = self._give()
        try:
            compile_ahead(self._device, compute, workers)
        finally:
            if workers is not None:
                workers.close()

    def close(self) -> None:
        """Give up what `run` would have needed. Harmless when called twice, and after `run`."""
        if (workers := self._give()) is not None:
            workers.close()

    def _give(self) -> Any:
        future, self._workers = self._workers, None
        if future is None:
            return None
        try:
            return future.result()
        except Exception:
            logger.debug("kernels are compiled without preparation", exc_info=True)
            return None


def compile_ahead(device: torch.device, compute: Callable[[], object], workers: Any = None) -> None:
    """Call `compute` with Triton's kernels compiled, not launched: what they would have written holds anything.

    Kernels that are missed, and what fails here, are compiled when they are first launched, one after another. Where
    there is no Triton, or `device` is no CUDA device, `compute` is not called.

    Args:
        device: where `compute` launches its kernels.
        compute: launches them; it must bear any numbers in the tensors that they write.
        workers: processes that help, a `vcore.ops.triton.compile_workers.CompileWorkers`, or None.
    """
    if device.type != "cuda":
        return
    compiled_ahead = _found("compiled_ahead")
    if compiled_ahead is None:
        return
    try:
        with compiled_ahead(device, workers):
            compute()
    except Exception as error:
        logger.warning("kernels are compiled as they are launched, which holds up the first requests: %s", error)
        logger.debug("that is where it failed", exc_info=True)


def _found(name: str) -> Any:
    """What is called so beside Triton's kernels; None without Triton, or with one that lacks what that imports."""
    try:
        return resolve_name(f"vcore.ops.triton.compile_ahead:{name}")
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "triton":
            raise
        return None
