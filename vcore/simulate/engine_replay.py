"""`replay_engine`: a trace through a real engine in real time: what a simulation is held to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from vcore.bench.serve.trace_source import TraceSource
from vcore.engine.core import EngineCore
from vcore.engine.request import EngineRequest
from vcore.engine.step_output import StepOutput
from vcore.sampling_params import SamplingParams
from vcore.simulate.step_log import StepLog
from vcore.simulate.timeline import Timeline
from vcore.traces import Trace

__all__ = ["CpuClock", "ReplayClock", "TimedSteps", "WallClock", "replay_engine", "requests_of"]


class ReplayClock(Protocol):
    """What a replay is timed by."""

    def __call__(self) -> float:
        """Seconds, monotonic."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let so many pass, while the engine has nothing to do."""
        ...


class WallClock:
    """Seconds as they pass."""

    def __call__(self) -> float:
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class CpuClock:
    """Seconds of this process on its CPU, for one busy thread on a machine that others use too; sleep takes no time."""

    def __init__(self) -> None:
        self._slept = 0.0

    def __call__(self) -> float:
        return time.process_time() + self._slept

    def sleep(self, seconds: float) -> None:
        self._slept += seconds


def requests_of(trace: Trace, vocab_size: int, seed: int = 0) -> Iterator[EngineRequest]:
    """The requests of a trace with made-up tokens, which share what the trace says; the index is the id."""
    source = TraceSource(trace, vocab_size=vocab_size)
    for index, (one, made) in enumerate(zip(trace.requests, source.requests(len(trace.requests), seed), strict=True)):
        yield EngineRequest(
            request_id=str(index),
            prompt_token_ids=made.token_ids or [],
            # Sampled, so that equal prompts do not have equal answers.
            params=SamplingParams(
                temperature=1.0,
                max_tokens=one.output_length,
                ignore_eos=True,
                seed=index,
                priority=one.priority,
                tenant=one.tenant,
                cache_ttl=one.cache_ttl,
            ),
            max_tokens=one.output_length,
            arrival_time=one.arrival_s,
            seed=index,
        )


def replay_engine(
    core: EngineCore,
    requests: Sequence[EngineRequest],
    log: StepLog,
    clock: ReplayClock | None = None,
) -> tuple[Timeline, list[int]]:
    """Serve requests at their arrival times, as an engine's own loop would, until all have ended.

    Args:
        core: with one step in flight, whose executor writes `log`.
        requests: by arrival; their ids are their indices.
        log: gets the duration of each step.
        clock: what arrivals and steps are timed by; None for seconds as they pass.

    Returns:
        When each got its tokens, in seconds from the start; and for each the number of steps before it came in.
    """
    clock = clock or WallClock()
    timeline = Timeline(np.array([one.arrival_time for one in requests]))
    entered: list[int] = []
    began = clock()

    def now() -> float:
        return clock() - began

    steps = TimedSteps(core, log, now)
    while len(entered) < len(requests) or core.has_unfinished:
        while len(entered) < len(requests) and requests[len(entered)].arrival_time <= now():
            core.add_request(requests[len(entered)])
            entered.append(len(log.entries))
        if not core.has_unfinished:
            clock.sleep(max(0.0, requests[len(entered)].arrival_time - now()))
            steps.idle()
            continue
        previous = steps.ended
        _write(timeline, steps.make(), previous, steps.ended)
    return timeline, entered


class TimedSteps:
    """Makes the steps of an engine one after another. A step lasts from the end of the one before, as simulated ones:
    taking in requests and handing out tokens belong to it.
    """

    def __init__(self, core: EngineCore, log: StepLog, now: Callable[[], float]) -> None:
        """Args:
        core: with one step in flight, whose executor writes `log`.
        log: gets the duration of each step.
        now: seconds, monotonic.
        """
        self._core = core
        self._log = log
        self._now = now
        self.ended = now()
        """When the last step ended, or the engine was last idle."""

    def idle(self) -> None:
        """The next step begins now."""
        self.ended = self._now()

    def make(self) -> StepOutput:
        """One step."""
        count, began = len(self._log.entries), self.ended
        output = self._core.step()
        self.ended = self._now()
        if len(self._log.entries) > count:
            self._log.entries[-1].seconds = self.ended - began
        return output


def _write(timeline: Timeline, output: StepOutput, previous: float, now: float) -> None:
    for request_id, started in output.started.items():
        timeline.started[int(request_id)] = previous
        timeline.num_cached[int(request_id)] = started.num_cached_tokens
    if output.request_ids:
        timeline.add_tokens(np.array(list(map(int, output.request_ids))), previous, now)
    for request_id, finished in output.finished.items():
        timeline.finished[int(request_id)] = now
        timeline.num_preemptions[int(request_id)] = finished.num_preemptions
