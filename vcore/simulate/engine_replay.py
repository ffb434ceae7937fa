"""`replay_engine`: a trace through a real engine in real time: what a simulation is held to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from vcore.bench.serve.trace_source import TraceSource
from vcore.engine.core import EngineCore
from vcore.engine.request import EngineRequest
from vcore.engine.step_output import StepOutput
from vcore.sampling_params import SamplingParams
from vcore.simulate.step_log import StepLog
from vcore.simulate.timeline import Timeline
from vcore.traces import Trace

__all__ = ["replay_engine", "requests_of", "step_engine"]


def requests_of(trace: Trace, vocab_size: int, seed: int = 0) -> Iterator[EngineRequest]:
    """The requests of a trace with made-up tokens, which share what the trace says; the index is the id."""
    source = TraceSource(trace, vocab_size=vocab_size)
    for index, (one, made) in enumerate(zip(trace.requests, source.requests(len(trace.requests), seed), strict=True)):
        yield EngineRequest(
            request_id=str(index),
            prompt_token_ids=made.token_ids or [],
            # Sampled, so that equal prompts do not have equal answers.
            params=SamplingParams(temperature=1.0, max_tokens=one.output_length, ignore_eos=True, seed=index),
            max_tokens=one.output_length,
            arrival_time=one.arrival_s,
            seed=index,
        )


def replay_engine(
    core: EngineCore,
    requests: Sequence[EngineRequest],
    log: StepLog,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Timeline, list[int]]:
    """Serve requests at their arrival times, as an engine's own loop would, until all have ended.

    Args:
        core: with one step in flight, whose executor writes `log`.
        requests: by arrival; their ids are their indices.
        log: gets the duration of each step.
        clock: seconds, monotonic.
        sleep: waits for so many.

    Returns:
        When each got its tokens, in seconds from the start; and for each the number of steps before it came in.
    """
    timeline = Timeline(np.array([one.arrival_time for one in requests]))
    entered: list[int] = []
    began, previous = clock(), 0.0

    def now() -> float:
        return clock() - began

    while len(entered) < len(requests) or core.has_unfinished:
        while len(entered) < len(requests) and requests[len(entered)].arrival_time <= now():
            core.add_request(requests[len(entered)])
            entered.append(len(log.entries))
        if not core.has_unfinished:
            sleep(max(0.0, requests[len(entered)].arrival_time - now()))
            continue
        output = step_engine(core, log, now)
        _write(timeline, output, previous, now())
        previous = now()
    return timeline, entered


def step_engine(core: EngineCore, log: StepLog, now: Callable[[], float] = time.perf_counter) -> StepOutput:
    """One step, with its duration in the log."""
    count, started = len(log.entries), now()
    output = core.step()
    if len(log.entries) > count:
        log.entries[-1].seconds = now() - started
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
