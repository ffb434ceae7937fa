"""What an executor implements: it owns the ranks that compute, and hides how many there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vcore.interfaces.step import SampledTokens, SchedulerOutput
from vcore.kv_cache.layout import CacheLayout

__all__ = ["Executor", "ExecutorContext", "Runner", "RunnerFactory", "StepHandle"]


class StepHandle(Protocol):
    """A step that was launched."""

    def collect(self) -> SampledTokens:
        """Wait for the step and return its tokens. Called once.

        Raises:
            Exception: whatever the step raised; the engine ends the requests in it.
        """
        ...


class Runner(Protocol):
    """What runs on one rank; `vcore.runner.ModelRunner` is the one there is."""

    def load(self) -> None:
        """Build the model and load its weights."""
        ...

    def cache_bytes_available(self) -> int:
        """Bytes that this rank can give to the KV cache."""
        ...

    def cache_layout(self) -> CacheLayout:
        """How the layers of the loaded model share blocks, and the bytes of one."""
        ...

    def initialize_cache(self, num_blocks: int) -> None:
        """Allocate the cache. Block 0 is the null block and counts among `num_blocks`."""
        ...

    def launch(self, output: SchedulerOutput) -> StepHandle:
        """Apply the difference and launch the step."""
        ...

    def start_profile(self, folder: Path) -> None:
        """Start torch's profiler; the trace goes into `folder`."""
        ...

    def stop_profile(self) -> None:
        """Stop it and write the trace."""
        ...

    def close(self) -> None:
        """Free the model and the cache."""
        ...


RunnerFactory = Callable[[int, int], Runner]
"""Makes the runner of ``(rank, world_size)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorContext:
    """What the core tells an executor when it builds it."""

    runner_factory: RunnerFactory
    world_size: int = 1


class Executor(ABC):
    """Runs the model on one or many ranks (API 1.0).

    The plugin's `load` is called with ``options`` and ``context`` (an `ExecutorContext`).
    """

    @abstractmethod
    def load(self) -> None:
        """Start the ranks and load the model on each."""

    @abstractmethod
    def cache_bytes_available(self) -> int:
        """The least over the ranks."""

    @abstractmethod
    def cache_layout(self) -> CacheLayout:
        """The layout of the rank that has the most `bytes_per_block`; the groups are the same on every rank."""

    @abstractmethod
    def initialize_cache(self, num_blocks: int) -> None:
        """Allocate the cache on every rank."""

    @abstractmethod
    def launch(self, output: SchedulerOutput) -> StepHandle:
        """Launch a step on every rank. Steps are collected in the order in which they were launched."""

    def check_health(self) -> None:
        """Raise `EngineDeadError` with the cause if a rank is gone."""

    @abstractmethod
    def start_profile(self, folder: Path) -> None:
        """Start torch's profiler on every rank; traces go into `folder`."""

    @abstractmethod
    def stop_profile(self) -> None:
        """Stop it and write the traces."""

    @abstractmethod
    def shutdown(self) -> None:
        """Stop the ranks and free what they hold. Harmless when called twice."""
