"""Compiling the kernels that a computation will launch before it launches any, several at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pkgutil import resolve_name

import torch

__all__ = ["compile_ahead"]

logger = logging.getLogger(__name__)


def compile_ahead(device: torch.device, compute: Callable[[], object]) -> None:
    """Call `compute` with Triton's kernels compiled, not launched: what they would have written holds anything.

    Kernels that are missed, and what fails here, are compiled when they are first launched, one after another. Where
    there is no Triton, or `device` is no CUDA device, `compute` is not called.

    Args:
        device: where `compute` launches its kernels.
        compute: launches them; it must bear any numbers in the tensors that they write.
    """
    if device.type != "cuda":
        return
    try:
        compiled_ahead = resolve_name("vcore.ops.triton.compile_ahead:compiled_ahead")
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        return
    try:
        with compiled_ahead(device):
            compute()
    except Exception:
        logger.debug("kernels are compiled as they are launched", exc_info=True)
