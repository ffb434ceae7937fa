"""`StepProfiler`: torch's profiler around the steps of one rank, written as a Chrome trace."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from vcore.errors import EngineError

__all__ = ["StepProfiler"]


class StepProfiler:
    """Starts and stops torch's profiler. The thread that runs the steps must start it."""

    def __init__(self, rank: int, device: torch.device) -> None:
        self._rank = rank
        self._device = device
        self._profile: profile | None = None
        self._folder = Path()

    @property
    def running(self) -> bool:
        """Whether a profile was started and not stopped."""
        return self._profile is not None

    def start(self, folder: Path) -> None:
        """Start to record; the trace will go into `folder`, which is made if it is missing.

        Raises:
            EngineError: a profile is running.
            OSError: the folder cannot be made.
        """
        if self._profile is not None:
            raise EngineError(f"a profile into {self._folder} is running; call stop_profile before starting another")
        folder.mkdir(parents=True, exist_ok=True)
        activities = [ProfilerActivity.CPU]
        if self._device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        started = profile(activities=activities)
        started.start()
        self._profile, self._folder = started, folder

    def stop(self) -> Path:
        """Stop, and write ``rank<RANK>-<nanoseconds since 1970>.pt.trace.json``.

        Returns:
            The file.

        Raises:
            EngineError: no profile is running.
        """
        if self._profile is None:
            raise EngineError("no profile is running; call start_profile first")
        running, self._profile = self._profile, None
        running.stop()
        path = self._folder / f"rank{self._rank}-{time.time_ns()}.pt.trace.json"
        running.export_chrome_trace(str(path))
        return path
