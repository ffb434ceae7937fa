"""`EngineDriver`: steps an `EngineCore` in the caller's thread, and hands each caller the outputs of its own requests.

Several callers, in one thread or in many, share the batch: whoever waits for an output makes the next
step, and everybody's outputs come of it. What a caller submits is withdrawn when it stops waiting, for
whatever reason, so nothing is left behind in the engine.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from vcore.engine.batch import about_prompt
from vcore.engine.fair_lock import FairLock
from vcore.engine.input_processor import ProcessedRequest
from vcore.engine.interrupts import deferred_interrupt
from vcore.engine.output_processor import OutputProcessor
from vcore.engine.request import EngineRequest
from vcore.engine.step_output import StepOutput
from vcore.errors import EngineError, RequestError, VcoreError
from vcore.outputs import RequestOutput

__all__ = ["EngineDriver", "SteppedCore"]

logger = logging.getLogger(__name__)

_MAX_SETTLING_STEPS = 16
"""More than there can be steps in flight."""


class SteppedCore(Protocol):
    """What the driver needs of `EngineCore`."""

    def add_request(self, request: EngineRequest) -> None: ...
    def abort(self, request_ids: Sequence[str]) -> None: ...
    def finish(self, request_id: str, num_tokens: int, stop_reason: str | None) -> None: ...
    def step(self) -> StepOutput: ...
    @property
    def has_unfinished(self) -> bool: ...


@dataclass(slots=True)
class _Call:
    """The requests that one caller waits for, and their outputs that it has not taken yet."""

    unfinished: set[str] = field(default_factory=set)
    outputs: deque[RequestOutput] = field(default_factory=deque)


class EngineDriver:
    """Steps the core for whoever waits. May be used from several threads at once."""

    def __init__(self, core: SteppedCore, output_processor: OutputProcessor) -> None:
        """Take over `core` and `output_processor`: nobody else may step or feed them."""
        self._core = core
        self._output_processor = output_processor
        self._calls: dict[str, _Call] = {}
        """By the id of the unfinished request."""
        self._lock = FairLock()

    def run(self, requests: Sequence[ProcessedRequest], *, stream: bool = False) -> Generator[RequestOutput]:
        """Submit `requests` when first asked for an output, and yield outputs as they come.

        Closing the iterator, or an exception in it, withdraws what is unfinished.

        Args:
            requests: all are taken in, or none.
            stream: whether every change is yielded, or only each request's end.

        Raises:
            RequestError: the core refuses one; the message says which.
            EngineDeadError: the engine cannot go on.
        """
        call = _Call()
        try:
            self._submit(call, requests, stream)
            while call.unfinished or call.outputs:
                if call.outputs:
                    yield call.outputs.popleft()
                else:
                    self._advance(call)
        finally:
            self._withdraw(call)

    def _submit(self, call: _Call, requests: Sequence[ProcessedRequest], stream: bool) -> None:
        with deferred_interrupt(), self._lock:
            for index, request in enumerate(requests):
                call.unfinished.add(request.request_id)
                self._calls[request.request_id] = call
                self._output_processor.add(request, stream=stream)
                try:
                    for engine_request in request.engine_requests:
                        self._core.add_request(engine_request)
                except RequestError as error:
                    if len(requests) == 1:
                        raise
                    raise about_prompt(error, index, len(requests)) from error

    def _advance(self, call: _Call) -> None:
        """Make a step, unless another thread's step has brought what `call` waits for."""
        with deferred_interrupt(), self._lock:
            if call.outputs or not call.unfinished:
                return
            self._step()
            if not call.outputs and call.unfinished and not self._core.has_unfinished:
                waiting = ", ".join(sorted(call.unfinished))
                raise EngineError(f"the engine has nothing left to do, but never finished: {waiting}")

    def _step(self) -> None:
        for output in self._output_processor.process(self._core.step()):
            call = self._calls[output.request_id]
            call.outputs.append(output)
            if output.finished:
                call.unfinished.discard(output.request_id)
                del self._calls[output.request_id]

    def _withdraw(self, call: _Call) -> None:
        """Abort what is unfinished, and if nobody else waits, let the core report it and come to rest."""
        if not call.unfinished:
            return
        with deferred_interrupt(), self._lock:
            for request_id in call.unfinished:
                self._calls.pop(request_id, None)
            try:
                self._core.abort(self._output_processor.forget(call.unfinished))
                for _ in range(_MAX_SETTLING_STEPS):
                    if self._calls or not self._core.has_unfinished:
                        break
                    self._step()
            except VcoreError as error:  # what made the caller stop is what it should hear of
                logger.warning("after withdrawing %d requests: %s", len(call.unfinished), error)
            call.unfinished.clear()
