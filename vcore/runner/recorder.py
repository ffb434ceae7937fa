"""`Recorder`: what is launched on the device is recorded as pieces, which are launched again as a whole.

    with recorder.session():
        recorder.begin()
        ...                      recorded; a device computes nothing of it
        replay = recorder.end()
        ...                      computed, as ever
        recorder.begin()
        ...

The pieces of all sessions share one pool of memory: what a piece has left there is valid until a piece of another
session is replayed.
"""

from __future__ import annotations

import gc
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import torch

__all__ = ["GraphRecorder", "Recorder", "Replay"]

Replay = Callable[[], None]
"""Launches a piece on the current stream."""


class Recorder(ABC):
    """Records pieces. Not thread safe."""

    @abstractmethod
    def session(self) -> AbstractContextManager[None]:
        """Pieces are recorded within one. Should it fail, the piece that was begun is given up."""

    @abstractmethod
    def begin(self) -> None:
        """From here on, what is launched belongs to a piece."""

    @abstractmethod
    def end(self) -> Replay:
        """The piece that was begun.

        Raises:
            RuntimeError: something in it cannot be recorded, such as waiting for the device.
        """

    @abstractmethod
    def alias(self, tensor: torch.Tensor) -> torch.Tensor:
        """The memory of `tensor`, for use between replays. It is not kept from pieces that are recorded later: they
        may use it as soon as nobody else does."""


class GraphRecorder(Recorder):
    """Pieces are CUDA graphs, captured on a stream of their own."""

    def __init__(self) -> None:
        self._memory: tuple[Any, torch.cuda.Stream] | None = None
        """What all graphs share: their memory pool, and the stream that they are captured on."""
        self._graph: torch.cuda.CUDAGraph | None = None

    @contextmanager
    def session(self) -> Iterator[None]:
        """As the contract says; on the current device."""
        if self._memory is None:
            self._memory = (torch.cuda.graph_pool_handle(), torch.cuda.Stream())  # type: ignore[no-untyped-call]
        _, stream = self._memory
        current = torch.cuda.current_stream()
        stream.wait_stream(current)
        # A collection could free what belongs to another graph, which no capture allows.
        collecting = gc.isenabled()
        gc.disable()
        try:
            with torch.cuda.stream(stream):
                try:
                    yield
                except BaseException:
                    if self._graph is not None:
                        with suppress(RuntimeError):  # that the capture failed: what is raised says why
                            self.end()
                    raise
        finally:
            if collecting:
                gc.enable()
        current.wait_stream(stream)

    def begin(self) -> None:
        assert self._memory is not None
        graph = torch.cuda.CUDAGraph()
        # Other threads go on as they were: they may allocate pinned memory.
        graph.capture_begin(pool=self._memory[0], capture_error_mode="thread_local")
        self._graph = graph

    def end(self) -> Replay:
        graph, self._graph = self._graph, None
        assert graph is not None
        graph.capture_end()
        replay: Replay = graph.replay
        return replay

    def alias(self, tensor: torch.Tensor) -> torch.Tensor:
        memory = torch.as_tensor(_Memory(tensor), device=tensor.device)
        return memory.view(tensor.dtype).as_strided(tensor.shape, tensor.stride())


class _Memory:
    """The bytes that a tensor reaches, by their address alone."""

    def __init__(self, tensor: torch.Tensor) -> None:
        last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        num_bytes = (last + 1) * tensor.element_size() if math.prod(tensor.shape) else 0
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": (num_bytes,),
            "typestr": "|u1",
            "data": (tensor.data_ptr(), False),
            "strides": None,
        }
