"""`Timeline`: the last steps and requests, kept in rings, to be looked at when something was slow."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vcore.engine.records import EngineStatus, RequestRecord, StepRecord

__all__ = ["EngineEvent", "RequestSpan", "Timeline", "Window"]

MAX_STEPS = 50_000
MAX_REQUESTS = 10_000
MAX_EVENTS = 200


@dataclass(frozen=True, slots=True)
class RequestSpan:
    """A finished request, without what is long: times in seconds, monotonic; None for what it did not reach."""

    request_id: str
    arrival: float
    started: float | None
    first_token: float | None
    end: float
    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int
    num_preemptions: int
    priority: int
    finish_reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """The engine's state changed."""

    time: float
    """Seconds, monotonic."""
    state: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Window:
    """What happened between two moments, in the order in which it ended."""

    start: float
    """Seconds, monotonic."""
    end: float
    steps: list[StepRecord]
    """Without the latencies of their tokens."""
    requests: list[RequestSpan]
    events: list[EngineEvent]


class Timeline:
    """A listener that keeps what it is told: an append a step, at most some 30 MB in all."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._steps: deque[StepRecord] = deque(maxlen=MAX_STEPS)
        self._requests: deque[RequestSpan] = deque(maxlen=MAX_REQUESTS)
        self._events: deque[EngineEvent] = deque(maxlen=MAX_EVENTS)

    def on_step(self, record: StepRecord) -> None:
        """Keep a step, without what grows with its requests; a report of endings alone is none."""
        if record.index:
            self._steps.append(replace(record, first_token_latencies=(), inter_token_latencies=()))

    def on_finished(self, record: RequestRecord) -> None:
        """Keep a request."""
        metrics = record.metrics
        end = metrics.finished_time if metrics.finished_time is not None else self._clock()
        self._requests.append(
            RequestSpan(
                request_id=record.request_id,
                arrival=metrics.arrival_time,
                started=metrics.first_scheduled_time,
                first_token=metrics.first_token_time,
                end=end,
                num_prompt_tokens=record.num_prompt_tokens,
                num_cached_tokens=record.num_cached_tokens,
                num_output_tokens=record.num_output_tokens,
                num_preemptions=metrics.num_preemptions,
                priority=record.priority,
                finish_reasons=tuple(record.finish_reasons),
            )
        )

    def on_engine(self, status: EngineStatus) -> None:
        """Keep a change of the engine's state."""
        self._events.append(EngineEvent(self._clock(), status.state, status.reason))

    def last(self, seconds: float) -> Window:
        """What ended within the last `seconds`, as far as it is kept."""
        end = self._clock()
        start = end - seconds
        return Window(
            start=start,
            end=end,
            steps=[step for step in self._steps if step.end >= start],
            requests=[request for request in self._requests if request.end >= start],
            events=[event for event in self._events if event.time >= start],
        )
