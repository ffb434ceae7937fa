"""`Replica`: one engine of the simulation, with its scheduler, its cache and its clock."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vcore.engine.request import EngineRequest
from vcore.engine.step_output import Finished, Started
from vcore.errors import RequestError
from vcore.interfaces.step import SchedulerOutput
from vcore.simulate.scheduler import SimulatedScheduler
from vcore.simulate.step_time import StepLoad, StepTime
from vcore.simulate.timeline import Timeline

__all__ = ["Clock", "Replica", "StepWatcher"]

_MOST_STEPS = 4096
"""Steps whose times are looked at together."""


class StepWatcher(Protocol):
    """Is told of each step that is made for itself, before its results are taken in."""

    def __call__(self, output: SchedulerOutput, load: StepLoad, started: float, ended: float) -> None: ...


@dataclass(slots=True)
class Clock:
    """Simulated seconds."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Replica:
    """Steps its scheduler as `vcore.engine.remote.EngineLoop` would: what has arrived by the end of a step is taken in
    before the next is planned.
    """

    def __init__(
        self,
        make_scheduler: Callable[[Clock], SimulatedScheduler],
        step_time: StepTime,
        timeline: Timeline,
        max_num_seqs: int,
        *,
        together: bool = True,
        watcher: StepWatcher | None = None,
    ) -> None:
        """An idle replica at time 0.

        Args:
            make_scheduler: builds the scheduler over the replica's clock.
            step_time: of the deployment.
            timeline: where results go; shared with other replicas.
            max_num_seqs: rows of the scheduler.
            together: whether uneventful steps are made together; the outcome is the same.
            watcher: told of steps.
        """
        self._clock = Clock()
        self.scheduler = make_scheduler(self._clock)
        self._step_time = step_time
        self._timeline = timeline
        self._together = together
        self._watcher = watcher
        self._arriving: deque[EngineRequest] = deque()
        self._request_of_row = np.zeros(max_num_seqs, dtype=np.int64)
        self._ended_at = 0.0
        """When its last step ended."""
        self._idle_s = 0.0
        """Seconds before its last step in which it made none."""
        self.num_steps = 0
        self.num_unfinished = 0
        """Requests that were sent here and have not ended."""

    @property
    def now(self) -> float:
        """Its clock."""
        return self._clock.now

    @property
    def busy_s(self) -> float:
        """Seconds of steps. No sum over them, so that it is the same however many are made together."""
        return self._ended_at - self._idle_s

    def submit(self, request: EngineRequest) -> None:
        """Send a request. Its arrival is no earlier than that of the one before.

        Its id is its index in the timeline.
        """
        self._arriving.append(request)
        self.num_unfinished += 1

    def run(self, until: float = math.inf) -> None:
        """Make every step that starts before `until`; with no limit, all that there is to do."""
        clock, scheduler = self._clock, self.scheduler
        while True:
            self._take_in()
            if not scheduler.has_unfinished:
                if not self._arriving or self._arriving[0].arrival_time >= until:
                    return
                clock.now = self._arriving[0].arrival_time
                continue
            if clock.now >= until:
                return
            if not (self._together and self._advance(until)):
                self._step()

    def _take_in(self) -> None:
        arriving, now = self._arriving, self._clock.now
        while arriving and arriving[0].arrival_time <= now:
            request = arriving.popleft()
            try:
                self.scheduler.add(request)
            except RequestError:
                self._timeline.rejected[int(request.request_id)] = True
                self.num_unfinished -= 1

    def _advance(self, until: float) -> bool:
        """Make uneventful steps together, if the next one is such."""
        scheduler, clock = self.scheduler, self._clock
        count = min(scheduler.num_uneventful(), _MOST_STEPS)
        if count < 1:
            return False
        requests = self._request_of_row[scheduler.batch.rows]
        times = np.empty(count + 1)
        times[0] = clock.now
        times[1:] = self._step_time.decode_seconds(len(requests), scheduler.kv_tokens(), count)
        np.cumsum(times, out=times)
        if self._arriving:
            until = min(until, self._arriving[0].arrival_time)
        # The step in which something arrives is made; the next one is not.
        count = min(count, int(np.searchsorted(times, until)))
        began = clock.now

        def set_time(made: int) -> None:
            clock.now = float(times[made])

        made = scheduler.advance(count, set_time)
        clock.now = began
        if made:
            times = times[: made + 1]
            self._timeline.add_run(requests, times)
            self._pass_to(float(times[-1]), made)
            if scheduler.has_untold:
                self._take_ends(scheduler.take_finished().finished)
        return bool(made)

    def _step(self) -> None:
        scheduler, clock = self.scheduler, self._clock
        output = scheduler.schedule()
        if output is None:
            ended = scheduler.take_finished().finished
            assert ended, "a scheduler with requests and nothing in flight must plan a step"
            self._take_ends(ended)
            return
        load = StepLoad.of(output, scheduler.last_starts())
        began, previous = clock.now, self._ended_at
        now = began + self._step_time.seconds(load)
        if self._watcher is not None:
            self._watcher(output, load, began, now)
        scheduler.take_rows(output)
        for new in output.new_rows:
            self._request_of_row[new.row] = int(new.request_id)
        self._pass_to(now, 1)
        sampled = scheduler.answer(output)
        result = scheduler.update(output, sampled)
        self._take_starts(result.started)
        if len(sampled.rows):
            self._timeline.add_tokens(self._request_of_row[sampled.rows], previous, now)
        if result.finished:
            self._take_ends(result.finished)

    def _pass_to(self, now: float, num_steps: int) -> None:
        self._idle_s += self._clock.now - self._ended_at
        self.num_steps += num_steps
        self._clock.now = self._ended_at = now

    def _take_starts(self, started: Mapping[str, Started]) -> None:
        timeline = self._timeline
        for request_id, start in started.items():
            timeline.started[int(request_id)] = start.time
            timeline.num_cached[int(request_id)] = start.num_cached_tokens

    def _take_ends(self, finished: Mapping[str, Finished]) -> None:
        timeline = self._timeline
        for request_id, end in finished.items():
            timeline.finished[int(request_id)] = self._clock.now
            timeline.num_preemptions[int(request_id)] = end.num_preemptions
        self.num_unfinished -= len(finished)
