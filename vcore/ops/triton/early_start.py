"""Programmatic dependent launch: a kernel takes its place on the device while the one before it still runs.

A kernel that was launched early may read what no kernel of the step writes (weights) at once. `wait` then holds it
until the kernel before it, and so every earlier one, is done and its writes are seen; a kernel that is launched
early calls it in all of its programs, before it reads anything else and before it writes.
"""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import functools
import os

import torch
import triton
import triton.language as tl

__all__ = ["begin", "begin_and_wait", "can_start_early", "starts_early", "wait"]

try:
    from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
except ImportError:  # a Triton without CUDA; then nothing is launched early

    @triton.jit
    def gdc_wait():
        pass

    @triton.jit
    def gdc_launch_dependents():
        pass


_MOST_ROWS = 64
"""Kernels of larger batches run for longer than they take to start, and early ones would take places from them."""


def starts_early(device: torch.device, num_rows: int) -> bool:
    """Whether to launch a kernel for `num_rows` tokens on `device` so."""
    return num_rows <= _MOST_ROWS and can_start_early(device)


@functools.cache
def can_start_early(device: torch.device) -> bool:
    """Whether kernels on `device` can be launched so: from compute capability 9.0 on."""
    if device.type != "cuda" or os.environ.get("TRITON_INTERPRET") == "1":
        return False
    return torch.cuda.get_device_capability(device)[0] >= 9


@triton.jit
def begin(EARLY: tl.constexpr):
    """Let the next kernel take its place."""
    if EARLY:
        gdc_launch_dependents()


@triton.jit
def wait(EARLY: tl.constexpr):
    """Until all that was launched before is done."""
    if EARLY:
        gdc_wait()


@triton.jit
def begin_and_wait(EARLY: tl.constexpr):
    """For kernels that read nothing but what earlier ones wrote."""
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
