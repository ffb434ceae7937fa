"""`EngineLoop`: takes in messages, steps the core, and sends one message a step. It knows no socket and no asyncio."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from vcore.engine.core import EngineHealth
from vcore.engine.remote.channel import EngineChannel
from vcore.engine.remote.error_message import ErrorMessage
from vcore.engine.remote.messages import (
    AbortRequests,
    AddRequest,
    Call,
    EngineDied,
    FinishRequest,
    HealthChanged,
    Refused,
    Reply,
    Shutdown,
    StepDone,
    ToEngine,
)
from vcore.engine.remote.preparation import Preparation, PrepareCallback
from vcore.engine.request import EngineRequest, FinishReason
from vcore.engine.step_output import Finished, StepOutput
from vcore.errors import EngineDeadError, RequestError
from vcore.kv_cache.block_map import BlockMap
from vcore.scheduler.settings import SchedulerStats

__all__ = ["EngineLoop", "LoopedCore"]

logger = logging.getLogger(__name__)

IDLE_CHECK_S = 5.0
"""How often an idle engine looks whether its ranks are still there."""

FAREWELL_S = 5.0
"""How long a dead engine waits for the other side to have read why."""


class LoopedCore(Protocol):
    """What the loop needs of `EngineCore`."""

    def add_request(self, request: EngineRequest) -> None: ...
    def abort(self, request_ids: Sequence[str]) -> None: ...
    def finish(self, request_id: str, num_tokens: int, stop_reason: str | None) -> None: ...
    def step(self) -> StepOutput: ...
    def stats(self) -> SchedulerStats: ...
    def block_map(self) -> BlockMap: ...
    def health(self) -> EngineHealth: ...
    def reset_prefix_cache(self) -> bool: ...
    def start_profile(self, folder: Path) -> None: ...
    def stop_profile(self) -> None: ...
    def shutdown(self) -> None: ...
    @property
    def has_unfinished(self) -> bool: ...
    @property
    def faults(self) -> tuple[str, ...]: ...
    @property
    def failed_steps(self) -> int: ...


class EngineLoop:
    """Drives a core for one client. Everything runs in the thread that calls `run`, but for preparations."""

    def __init__(self, core: LoopedCore, channel: EngineChannel, prepare: PrepareCallback | None = None) -> None:
        """Take over `core`: nobody else may step it.

        Args:
            core: shut down when the loop ends.
            channel: the line to the client.
            prepare: what requests that name logits processors go through before they enter the core.
        """
        self._core = core
        self._channel = channel
        self._preparation = None if prepare is None else Preparation(prepare, channel.wake)
        self._told_health: tuple[tuple[str, ...], int] = ((), 0)
        self._stopping = False

    def run(self) -> None:
        """Serve until a `Shutdown` comes, or the engine dies; the client is told of that. Frees the engine."""
        try:
            while not self._stopping:
                self._take_in()
                if self._core.has_unfinished:
                    self._step()
        except Exception as error:
            logger.exception("the engine cannot go on")
            reason = str(error) if isinstance(error, EngineDeadError) else f"{type(error).__name__}: {error}"
            self._channel.send(EngineDied(reason))
            self._wait_for_shutdown()
        finally:
            if self._preparation is not None:
                self._preparation.close()
            self._core.shutdown()

    def _wait_for_shutdown(self) -> None:
        """Stay until the last message was read: what is still on its way when a process ends may be lost."""
        until = time.monotonic() + FAREWELL_S
        while not self._stopping and (left := until - time.monotonic()) > 0:
            self._stopping = any(isinstance(message, Shutdown) for message in self._channel.receive(left))

    def _take_in(self) -> None:
        """Handle what has come; with nothing to compute, wait for something."""
        idle = not self._core.has_unfinished
        messages = self._channel.receive(IDLE_CHECK_S if idle else 0.0)
        for message in messages:
            self._handle(message)
        if self._preparation is not None:
            for prepared in self._preparation.take():
                if prepared.error is None:
                    self._add(prepared.request_ids, prepared.requests)
                else:
                    self._refuse(prepared.request_ids, 0, prepared.error)
        if idle and not messages:
            health = self._core.health()
            if not health.alive:
                raise EngineDeadError(health.reason or "it is not alive")

    def _handle(self, message: ToEngine) -> None:
        match message:
            case AddRequest():
                self._take_request(message)
            case AbortRequests(request_ids):
                self._abort(request_ids)
            case FinishRequest(request_id, num_tokens, stop_reason):
                self._core.finish(request_id, num_tokens, stop_reason)
            case Call():
                self._channel.send(self._answer(message))
            case Shutdown():
                self._stopping = True

    # Requests

    def _take_request(self, message: AddRequest) -> None:
        try:
            requests = message.engine_requests()
        except RequestError as error:
            self._refuse(message.request_ids, 0, error)
            return
        if self._preparation is not None and requests[0].params.logits_processors:
            self._preparation.submit(requests)
        else:
            self._add(message.request_ids, requests)

    def _add(self, request_ids: Sequence[str], requests: Sequence[EngineRequest]) -> None:
        added: list[str] = []
        try:
            for request in requests:
                self._core.add_request(request)
                added.append(request.request_id)
        except RequestError as error:
            self._core.abort(added)
            self._refuse(request_ids, len(added), error)

    def _refuse(self, request_ids: Sequence[str], num_added: int, error: Exception) -> None:
        if not isinstance(error, RequestError):
            logger.error("a request could not be prepared", exc_info=error)
        self._channel.send(Refused(tuple(request_ids), num_added, ErrorMessage.of(error)))

    def _abort(self, request_ids: Sequence[str]) -> None:
        if self._preparation is not None and (dropped := self._preparation.abort(request_ids)):
            ends = {request_id: Finished(FinishReason.ABORT, None, 0) for request_id in dropped}
            now = time.monotonic()
            self._channel.send(StepDone(StepOutput(finished=ends, time=now), self._core.stats(), now, now))
        self._core.abort(request_ids)

    # Steps

    def _step(self) -> None:
        start = time.monotonic()
        output = self._core.step()
        if output.step_id or output.finished or output.token_ids:
            self._channel.send(StepDone(output, self._core.stats(), start, time.monotonic()))
        health = (self._core.faults, self._core.failed_steps)
        if health != self._told_health:
            self._told_health = health
            self._channel.send(HealthChanged(*health))

    # Questions

    def _answer(self, call: Call) -> Reply:
        try:
            return self._call(call)
        except EngineDeadError:
            raise
        except Exception as error:  # the profiler's own failures, say: whoever asked hears of them
            logger.exception("%s failed", call.name)
            return Reply(call.serial, error=ErrorMessage.of(error))

    def _call(self, call: Call) -> Reply:
        core, serial = self._core, call.serial
        match call.name:
            case "stats":
                return Reply(serial, stats=core.stats())
            case "block_map":
                return Reply(serial, block_map=core.block_map())
            case "reset_prefix_cache":
                return Reply(serial, done=core.reset_prefix_cache())
            case "start_profile":
                assert call.folder is not None
                core.start_profile(Path(call.folder))
            case "stop_profile":
                core.stop_profile()
        return Reply(serial)
