"""`on_device`: the device that kernels, streams and graphs are launched on."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["on_device"]

_NOTHING = nullcontext()


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """Makes a CUDA `device` the current one of the calling thread, and then the one before it again.

    What is launched by name (a Triton kernel, a new stream, a graph) goes to the current device, whatever its tensors
    say, and each thread begins with device 0.
    """
    return torch.cuda.device(device) if device.type == "cuda" else _NOTHING
