"""`ThreadCollective`: several tensor-parallel ranks in one process, one thread each, for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

__all__ = ["ThreadCollective"]

T = TypeVar("T")

_TIMEOUT_S = 60.0
"""After which a rank that waits for one that failed gives up."""


class ThreadCollective:
    """One rank's end of an exchange among threads; a `vcore.interfaces.collective.Collective`."""

    def __init__(self, rank: int, slots: list[torch.Tensor | None], barrier: threading.Barrier) -> None:
        self._rank = rank
        self._slots = slots
        self._barrier = barrier

    @classmethod
    def run(cls, size: int, work: Callable[[int, ThreadCollective], T]) -> list[T]:
        """Call ``work(rank, collective)`` on `size` threads; the results in rank order.

        Raises:
            Exception: what a rank raised.
        """
        barrier = threading.Barrier(size, timeout=_TIMEOUT_S)
        slots: list[torch.Tensor | None] = [None] * size

        def run_rank(rank: int) -> T:
            try:
                return work(rank, cls(rank, slots, barrier))
            except BaseException:
                barrier.abort()  # so that no other rank waits for this one
                raise

        with ThreadPoolExecutor(size) as pool:
            futures = [pool.submit(run_rank, rank) for rank in range(size)]
        errors = [error for future in futures if (error := future.exception()) is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
            raise error
        return [future.result() for future in futures]

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over ranks; every rank adds in the same order."""
        return torch.stack(self._exchange(tensor)).sum(0)

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """The ranks' tensors joined along the last axis."""
        return torch.cat(self._exchange(tensor), -1)

    def _exchange(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        self._barrier.wait()  # all have taken what the exchange before left
        self._slots[self._rank] = tensor
        self._barrier.wait()
        return [slot for slot in self._slots if slot is not None]
