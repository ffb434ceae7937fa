"""`EngineCore`: the step loop. It joins the scheduler to the executor and knows neither text nor plugins.

    scheduled = scheduler.schedule()           which requests, how many tokens, which blocks
    handle    = executor.launch(scheduled)     applied to every rank's batch state, and started
    sampled   = handle.collect()               the tokens
    output    = scheduler.update(...)          stops, block hashes, frees

`step` may be called by hand. Nothing here, or below it, goes through pluggy.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vcore.engine.observers import ObserverDispatcher
from vcore.engine.request import EngineRequest
from vcore.engine.step_output import StepOutput
from vcore.errors import EngineDeadError, EngineError, PolicyError
from vcore.interfaces.executor import Executor, StepHandle
from vcore.interfaces.step import SchedulerOutput
from vcore.kv_cache.block_map import BlockMap
from vcore.scheduler import Scheduler, SchedulerStats

__all__ = ["EngineCore", "EngineHealth"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """Whether the engine goes on, and what went wrong on the way."""

    alive: bool
    reason: str | None
    """Why it is dead."""
    faults: tuple[str, ...]
    """Policies that failed and were replaced by the core's own order, one line each."""
    failed_steps: int
    """Steps that raised; their requests were ended, others went on."""


class EngineCore:
    """Requests in, tokens out, one step at a time. Not thread safe: one thread drives it."""

    def __init__(
        self,
        scheduler: Scheduler,
        executor: Executor,
        *,
        observers: ObserverDispatcher | None = None,
        depth: int = 1,
    ) -> None:
        """Join the parts.

        Args:
            scheduler: owns requests and blocks.
            executor: loaded, with its cache allocated.
            observers: told of steps and endings, off the step loop.
            depth: how many steps may be in flight.
        """
        self._scheduler = scheduler
        self._executor = executor
        self._observers = observers
        self._depth = depth
        self._in_flight: deque[tuple[SchedulerOutput, StepHandle]] = deque()
        self._dead: str | None = None
        self._failed_steps = 0
        self._untold: StepOutput | None = None
        """Endings of a step that was interrupted: its caller got the interrupt instead."""
        self._closed = False

    @property
    def has_unfinished(self) -> bool:
        """Whether a step is needed: a request waits or runs, or an ending has not been told yet."""
        return self._scheduler.has_unfinished or bool(self._in_flight) or self._untold is not None

    def add_request(self, request: EngineRequest) -> None:
        """Take in a request; it waits until a step admits it.

        Raises:
            RequestTooLargeError: it can never fit; the message has the numbers.
            RequestError: the scheduling policy refuses it, or its id is in use.
            EngineDeadError: the engine cannot go on.
        """
        self._check_alive()
        with self._fatal_policy_faults():
            self._scheduler.add(request)

    def abort(self, request_ids: Sequence[str]) -> None:
        """End requests at once, wherever they are; the next `step` reports them. Unknown ids are ignored."""
        with self._fatal_policy_faults():
            self._scheduler.abort(request_ids)

    def finish(self, request_id: str, num_tokens: int, stop_reason: str | None) -> None:
        """End a request because a stop string was found after `num_tokens` of its tokens. Unknown ids are ignored."""
        with self._fatal_policy_faults():
            self._scheduler.finish(request_id, num_tokens, stop_reason)

    def step(self) -> StepOutput:
        """Compute one step and return what it gave; empty if there was nothing to do.

        A step that raises ends the requests that were in it, with the cause, and no others; so does what is not
        an `Exception` (a KeyboardInterrupt), which goes on to the caller, and the next `step` tells of the endings.

        Raises:
            EngineDeadError: the engine cannot go on: a rank is gone, a policy failed under `plugins.strict`, or an
                earlier step was cut off while it was planned or taken in.
        """
        self._check_alive()
        if self._untold is not None:
            output, self._untold = self._untold, None
            return self._tell(output)
        try:
            scheduled = self._scheduler.schedule()
        except PolicyError as error:
            raise self._die(error) from error
        except BaseException as error:
            self._lose_state("planned", error)
            raise
        if scheduled is not None:
            try:
                self._in_flight.append((scheduled, self._executor.launch(scheduled)))
            except BaseException as error:
                return self._fail([scheduled], error)
            if len(self._in_flight) < self._depth:
                return StepOutput()
        if not self._in_flight:
            return self._tell(self._scheduler.take_finished())
        return self._collect(*self._in_flight.popleft())

    def _collect(self, scheduled: SchedulerOutput, handle: StepHandle) -> StepOutput:
        try:
            sampled = handle.collect()
        except BaseException as error:
            return self._fail(self._with_later(scheduled), error)
        try:
            output = self._scheduler.update(scheduled, sampled)
        except PolicyError as error:
            raise self._die(error) from error
        except EngineError as error:  # the executor's answer does not fit the step
            return self._fail(self._with_later(scheduled), error)
        except BaseException as error:
            self._lose_state("taken in", error)
            raise
        _count(scheduled, output)
        return self._tell(output)

    def _with_later(self, scheduled: SchedulerOutput) -> list[SchedulerOutput]:
        """A step that fails and those launched after it, which read what it should have written; they are dropped."""
        later = [output for output, _ in self._in_flight]
        self._in_flight.clear()
        return [scheduled, *later]

    def _fail(self, steps: list[SchedulerOutput], error: BaseException) -> StepOutput:
        """End the requests in `steps`, the last ones that were launched."""
        self._failed_steps += 1
        output = StepOutput()
        for scheduled in steps:
            failed = self._scheduler.fail(scheduled, error)
            output.finished.update(failed.finished)
            output.started.update(failed.started)
            output.time = failed.time
        if isinstance(error, EngineDeadError):
            raise self._die(error) from error
        if not isinstance(error, Exception):
            self._untold = output
            raise error
        logger.error("a step failed; %d requests ended with it", len(output.finished), exc_info=error)
        return self._tell(output)

    def _tell(self, output: StepOutput) -> StepOutput:
        if self._observers is not None:
            self._observers.on_step(output, self._scheduler.stats())
        return output

    @contextmanager
    def _fatal_policy_faults(self) -> Iterator[None]:
        """A `PolicyError`, which only `plugins.strict` lets through, ends the engine."""
        try:
            yield
        except PolicyError as error:
            raise self._die(error) from error

    def _die(self, error: Exception) -> EngineDeadError:
        self._dead = str(error)
        return EngineDeadError(f"the engine stopped: {error}")

    def _lose_state(self, what: str, error: BaseException) -> None:
        """Cut off in the middle of its bookkeeping, the scheduler could give wrong tokens; so nothing goes on."""
        self._dead = f"{type(error).__name__} while a step was {what}: {error}"

    def _check_alive(self) -> None:
        if self._dead is not None:
            raise EngineDeadError(f"the engine stopped earlier: {self._dead}. Make a new one.")
        if self._closed:
            raise EngineDeadError("the engine was shut down. Make a new one.")

    def reset_prefix_cache(self) -> bool:
        """Forget every cached prefix. Running requests keep their blocks."""
        return self._scheduler.reset_prefix_cache()

    def stats(self) -> SchedulerStats:
        """Counts of requests, blocks and prefix hits."""
        return self._scheduler.stats()

    def block_map(self) -> BlockMap:
        """Which blocks of the cache are used and which cached, as of now. Takes time that grows with their number."""
        return self._scheduler.block_map()

    @property
    def faults(self) -> tuple[str, ...]:
        """One line for each policy that failed and was replaced by the core's own order."""
        return self._scheduler.faults()

    @property
    def failed_steps(self) -> int:
        """Steps that raised."""
        return self._failed_steps

    def health(self) -> EngineHealth:
        """Whether the engine goes on, with every policy fault so far."""
        if self._dead is None and not self._closed:
            try:
                self._executor.check_health()
            except EngineDeadError as error:
                self._dead = str(error)
        reason = self._dead or ("shut down" if self._closed else None)
        return EngineHealth(reason is None, reason, tuple(self._scheduler.faults()), self._failed_steps)

    def start_profile(self, folder: Path) -> None:
        """Start torch's profiler on every rank; Chrome traces go into `folder`."""
        self._check_alive()
        self._executor.start_profile(folder)

    def stop_profile(self) -> None:
        """Stop it and write the traces."""
        self._executor.stop_profile()

    def shutdown(self) -> None:
        """Free the model, the cache and the observers. Harmless when called twice."""
        if self._closed:
            return
        self._closed = True
        self._in_flight.clear()
        try:
            self._executor.shutdown()
        finally:
            if self._observers is not None:
                self._observers.close()


def _count(scheduled: SchedulerOutput, output: StepOutput) -> None:
    """Say in `output` what was computed in the step."""
    output.step_id = scheduled.step_id
    output.num_requests = num_requests = len(scheduled.rows)
    output.num_decodes = num_decodes = scheduled.num_decodes
    if num_decodes < num_requests:
        output.num_prompt_tokens = scheduled.num_total_tokens - num_decodes
    if scheduled.new_rows and num_decodes:  # a prompt may have one token that is not cached
        begun = {new.row for new in scheduled.new_rows}
        num_begun = sum(row in begun for row in scheduled.rows[:num_decodes].tolist())
        output.num_decodes -= num_begun
        output.num_prompt_tokens += num_begun
