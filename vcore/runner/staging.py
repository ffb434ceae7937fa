"""`Staging`: the one way by which a step's host arrays reach the device.

Arrays are put, one after another, into one buffer; a single copy takes them over.

    pinned host buffer   | input_ids | positions | slot_mapping | ... |        one of a ring, guarded by events
                               |  flush(): one asynchronous copy
    device buffer        | input_ids | positions | slot_mapping | ... |        `put` returned views of it

On the CPU nothing is copied: `put` gives a tensor that shares the array's memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["PackedStaging", "SharedStaging", "Staging", "make_staging"]

_ALIGNMENT = 64


class Staging(ABC):
    """Takes a step's arrays to the device. In each step: `begin`, any number of `put`, `flush`."""

    @abstractmethod
    def begin(self) -> None:
        """Start a step; what earlier steps put may be overwritten."""

    @abstractmethod
    def put(self, array: NDArray[Any]) -> torch.Tensor:
        """A device tensor of the same shape and dtype, whose content is there once `flush` was called.

        It is valid until the next `begin`. `array` may be changed after `flush` only where staging copies.
        """

    @abstractmethod
    def flush(self) -> None:
        """Start the copy of all that was put. Work launched later on the current stream sees it."""


class SharedStaging(Staging):
    """For the CPU: tensors share the arrays' memory."""

    def begin(self) -> None:
        """Nothing to do."""

    def put(self, array: NDArray[Any]) -> torch.Tensor:
        """A tensor that shares `array`'s memory."""
        return torch.from_numpy(array)

    def flush(self) -> None:
        """Nothing to do."""


class PackedStaging(Staging):
    """For an accelerator: one packed copy a step from a ring of pinned buffers."""

    def __init__(self, device: torch.device, *, num_bytes: int = 1 << 16, depth: int = 3) -> None:
        """Allocate the buffers.

        Args:
            device: where tensors are to be.
            num_bytes: the size to start with; buffers double when a step needs more.
            depth: host buffers in the ring: one more than the steps that may be in flight.
        """
        self._device = device
        self._cuda = device.type == "cuda"
        self._depth = depth
        self._turn = 0
        self._allocate(num_bytes)

    def _allocate(self, num_bytes: int) -> None:
        self._offset = 0
        self._capacity = num_bytes
        self._on_device = torch.empty(num_bytes, dtype=torch.uint8, device=self._device)
        self._on_host = [torch.empty(num_bytes, dtype=torch.uint8, pin_memory=self._cuda) for _ in range(self._depth)]
        self._as_numpy = [buffer.numpy() for buffer in self._on_host]
        self._copied: list[torch.cuda.Event | None] = [None] * self._depth

    def begin(self) -> None:
        """Turn to the next host buffer, once its last copy is done."""
        self._offset = 0
        self._turn = (self._turn + 1) % self._depth
        event = self._copied[self._turn]
        if event is not None:
            event.synchronize()

    def put(self, array: NDArray[Any]) -> torch.Tensor:
        """A view of the device buffer; `array` is copied at once and may be changed."""
        start, end = self._offset, self._offset + array.nbytes
        if end > self._capacity:
            # What was put already travels in the old buffers, which live as long as their views.
            self.flush()
            self._allocate(max(2 * self._capacity, array.nbytes))
            start, end = 0, array.nbytes
        self._as_numpy[self._turn][start:end].view(array.dtype).reshape(array.shape)[...] = array
        self._offset = -(-end // _ALIGNMENT) * _ALIGNMENT
        dtype = _TORCH_DTYPES[array.dtype.str]
        return self._on_device[start:end].view(dtype).view(array.shape)

    def flush(self) -> None:
        """Start one asynchronous copy on the current stream."""
        used = min(self._offset, self._capacity)
        if not used:
            return
        # Without events to wait for, a copy that outlives this call could read the buffer's next content.
        self._on_device[:used].copy_(self._on_host[self._turn][:used], non_blocking=self._cuda)
        if self._cuda:
            event = self._copied[self._turn] or torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own
            event.record()
            self._copied[self._turn] = event


_TORCH_DTYPES: dict[str, torch.dtype] = {
    np.dtype(np.int32).str: torch.int32,
    np.dtype(np.int64).str: torch.int64,
    np.dtype(np.float32).str: torch.float32,
    np.dtype(np.bool_).str: torch.bool,
}


def make_staging(device: torch.device) -> Staging:
    """The staging that fits `device`."""
    return SharedStaging() if device.type == "cpu" else PackedStaging(device)
