"""`KernelTimer`: the time of one launch out of many, on any device. It does not know what is launched."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["KernelTimer", "Launches", "Timing"]

logger = logging.getLogger(__name__)

_MIN_SAMPLES = 5
_MIN_LAUNCHES = 8
"""In a sample, so that what a sample costs by itself does not show."""
_MIN_CAPTURED = 32
"""The same of a graph, whose launch takes as long as a small kernel."""
_MAX_SETS = 256


@dataclass(frozen=True, slots=True)
class Launches:
    """The same work on several sets of inputs."""

    launch: Callable[[int], object]
    """Does it on the set of that number, from 0."""
    num_sets: int


@dataclass(frozen=True, slots=True)
class Timing:
    """What was found."""

    microseconds: float
    """Of one launch."""
    captured: bool
    """Whether they were replayed from a CUDA graph; otherwise the host launched them one by one."""


class KernelTimer:
    """Times launches in samples: each goes once or more through all sets of inputs, and the median sample counts.

    Between two launches on the same set all others are read, so that none is found in a cache of the device if
    together they are larger than it: see `num_sets`. On CUDA a sample lies between two events, with the device busy
    before, and is one replay of a graph where it can be captured; elsewhere it is timed by the host's clock, with the
    device idle before and after.
    """

    def __init__(self, device: torch.device, *, pool_bytes: int, seconds: float) -> None:
        """Args:
        device: where launches run.
        pool_bytes: how much memory all sets of inputs take together, at least.
        seconds: how long samples are taken for, after a fifth of that to warm up; five are taken in any case.
        """
        self._device = device
        self._pool_bytes = pool_bytes
        self._seconds = seconds

    def num_sets(self, set_bytes: int) -> int:
        """How many sets of inputs of `set_bytes` each fill the pool: 2 to 256."""
        return max(2, min(-(-self._pool_bytes // max(1, set_bytes)), _MAX_SETS))

    def time(self, launches: Launches, *, capture: bool) -> Timing:
        """The median time of one launch.

        Args:
            launches: what to time.
            capture: whether to replay a CUDA graph of them, on CUDA. What cannot be captured is launched, and that is
                logged.
        """
        is_cuda = self._device.type == "cuda"
        least = _MIN_CAPTURED if capture and is_cuda else _MIN_LAUNCHES
        count = launches.num_sets * -(-least // launches.num_sets)

        def launch_all() -> None:
            for index in range(count):
                launches.launch(index % launches.num_sets)

        self._warm_up(launches)
        replay = self._capture(launch_all) if capture and is_cuda else None
        sample = self._event_sample if is_cuda else self._clock_sample
        seconds = self._median(sample, replay or launch_all)
        return Timing(seconds / count * 1e6, replay is not None)

    def _warm_up(self, launches: Launches) -> None:
        """Compile and allocate, on a stream beside the current one, as a capture wants it."""
        if self._device.type != "cuda":
            launches.launch(0)
            return
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            launches.launch(0)
            launches.launch(1)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()

    def _capture(self, launch_all: Callable[[], None]) -> Callable[[], object] | None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                launch_all()
        except Exception as error:  # whatever a plugin's code does in a capture
            logger.warning("not captured, so launched one by one: %s: %s", type(error).__name__, error)
            torch.cuda.synchronize()  # raises if the device is beyond use
            return None
        replay: Callable[[], object] = graph.replay
        return replay

    def _median(self, sample: Callable[[Callable[[], object]], float], run: Callable[[], object]) -> float:
        end = time.perf_counter() + self._seconds / 5
        sample(run)
        while time.perf_counter() < end:
            sample(run)
        samples: list[float] = []
        end = time.perf_counter() + self._seconds
        while len(samples) < _MIN_SAMPLES or time.perf_counter() < end:
            samples.append(sample(run))
        return statistics.median(samples)

    def _event_sample(self, run: Callable[[], object]) -> float:
        """The first run keeps the device busy until the host has launched the second, which is timed."""
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        run()
        began.record()
        run()
        ended.record()
        ended.synchronize()
        milliseconds: float = began.elapsed_time(ended)
        return milliseconds / 1e3

    def _clock_sample(self, run: Callable[[], object]) -> float:
        self._wait()
        began = time.perf_counter()
        run()
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self._device.type != "cpu":
            torch.get_device_module(self._device).synchronize(self._device)
