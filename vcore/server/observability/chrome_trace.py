"""A `Window` of the timeline in Chrome's trace event format, which Perfetto and chrome://tracing open.

    process 1  engine     one track of steps (two where steps overlap: one is launched before the last is collected),
                          counters of requests, blocks and tokens, and the engine's changes of state as instants
    process 2  requests   one track a request: the whole of it, and within it queued, prefill and decode

The format: "Trace Event Format" (Google, 2016). Times are microseconds since the window's first event; events are in
the order of their times, and on a track each lies within those that it overlaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from vcore.version import __version__

if TYPE_CHECKING:
    from vcore.engine.records import StepRecord
    from vcore.server.observability.timeline import EngineEvent, RequestSpan, Window

__all__ = ["chrome_trace"]

_ENGINE, _REQUESTS = 1, 2
Event = dict[str, Any]


def chrome_trace(window: Window, *, wall_start: float) -> dict[str, Any]:
    """The JSON object of a trace file.

    Args:
        window: what happened.
        wall_start: the window's start as seconds since the epoch, for the file's metadata.
    """
    origin = min(_first_times(window), default=window.start)
    steps = sorted(window.steps, key=lambda step: step.start)
    requests = sorted(window.requests, key=lambda request: request.arrival)
    lanes = _lanes(steps)
    timed = [
        *_step_events(steps, lanes, origin),
        *_counter_events(steps, origin),
        *_request_events(requests, origin),
        *_state_events(window.events, origin),
    ]
    # A sort that is stable keeps what encloses in front of what begins with it.
    timed.sort(key=lambda event: event["ts"])
    return {
        "traceEvents": [*_names(max(lanes, default=0) + 1, requests), *timed],
        "displayTimeUnit": "ms",
        "otherData": {"vcore": __version__, "epoch_s": wall_start + origin - window.start},
    }


def _first_times(window: Window) -> Iterator[float]:
    yield from (step.start for step in window.steps)
    yield from (request.arrival for request in window.requests)
    yield from (event.time for event in window.events)


def _microseconds(time: float, origin: float) -> float:
    return round((time - origin) * 1e6, 1)


def _lanes(steps: Iterable[StepRecord]) -> list[int]:
    """The track of each step, the lowest on which the one before has ended."""
    ends: list[float] = []
    lanes = []
    for step in steps:
        lane = next((lane for lane, end in enumerate(ends) if end <= step.start), len(ends))
        ends[lane:] = [step.end, *ends[lane + 1 :]]
        lanes.append(lane)
    return lanes


def _names(num_lanes: int, requests: Iterable[RequestSpan]) -> Iterator[Event]:
    def name(kind: str, pid: int, tid: int, **args: object) -> Event:
        return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": args}

    yield name("process_name", _ENGINE, 0, name="engine")
    yield name("process_name", _REQUESTS, 0, name="requests")
    for lane in range(num_lanes):
        yield name("thread_name", _ENGINE, lane + 1, name="steps" if lane == 0 else f"steps in flight {lane + 1}")
    for index, request in enumerate(requests, start=1):
        yield name("thread_name", _REQUESTS, index, name=request.request_id)
        yield name("thread_sort_index", _REQUESTS, index, sort_index=index)


def _span(name: str, pid: int, tid: int, times: tuple[float, float], origin: float, args: dict[str, object]) -> Event:
    start = _microseconds(times[0], origin)
    duration = max(0.0, round(_microseconds(times[1], origin) - start, 1))
    return {"ph": "X", "cat": "vcore", "name": name, "pid": pid, "tid": tid, "ts": start, "dur": duration, "args": args}


def _step_events(steps: list[StepRecord], lanes: list[int], origin: float) -> Iterator[Event]:
    for step, lane in zip(steps, lanes, strict=True):
        kinds = ((step.num_prompt_tokens, "prefill"), (step.num_decodes, "decode"))
        name = " + ".join(kind for count, kind in kinds if count) or "step"
        args: dict[str, object] = {
            "index": step.index,
            "requests": step.num_requests,
            "prompt_tokens": step.num_prompt_tokens,
            "decodes": step.num_decodes,
        }
        yield _span(name, _ENGINE, lane + 1, (step.start, step.end), origin, args)


def _counter_events(steps: Iterable[StepRecord], origin: float) -> Iterator[Event]:
    for step in sorted(steps, key=lambda step: step.end):
        stats = step.stats
        blocks = {"used": stats.used_blocks, "cached": stats.cached_blocks}
        tokens = {"prompt": step.num_prompt_tokens, "decode": step.num_decodes}
        requests = {"running": stats.running, "waiting": stats.waiting}
        for name, args in (("requests", requests), ("KV blocks", blocks), ("tokens a step", tokens)):
            yield {
                "ph": "C",
                "name": name,
                "pid": _ENGINE,
                "tid": 0,
                "ts": _microseconds(step.end, origin),
                "args": args,
            }


def _request_events(requests: Iterable[RequestSpan], origin: float) -> Iterator[Event]:
    for tid, request in enumerate(requests, start=1):
        args: dict[str, object] = {
            "prompt_tokens": request.num_prompt_tokens,
            "cached_tokens": request.num_cached_tokens,
            "output_tokens": request.num_output_tokens,
            "preemptions": request.num_preemptions,
            "priority": request.priority,
            "finish_reasons": ", ".join(request.finish_reasons),
        }
        yield _span("request", _REQUESTS, tid, (request.arrival, request.end), origin, args)
        for name, start, end in phases(request):
            yield _span(name, _REQUESTS, tid, (start, end), origin, {})


def phases(request: RequestSpan) -> Iterator[tuple[str, float, float]]:
    """Name, start and end of each phase that the request reached; they follow on each other."""
    yield "queued", request.arrival, min(_or(request.started, request.end), request.end)
    if request.started is not None:
        yield "prefill", request.started, min(_or(request.first_token, request.end), request.end)
    if request.first_token is not None:
        yield "decode", request.first_token, request.end


def _or(time: float | None, other: float) -> float:
    return other if time is None else time


def _state_events(events: Iterable[EngineEvent], origin: float) -> Iterator[Event]:
    for event in events:
        yield {
            "ph": "i",
            "s": "g",
            "name": f"engine {event.state}",
            "pid": _ENGINE,
            "tid": 0,
            "ts": _microseconds(event.time, origin),
            "args": {"reason": event.reason or ""},
        }
