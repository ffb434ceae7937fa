"""`OpenRequests`: what the asyncio side knows of the requests that are in the engine, and who waits for them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from vcore.engine.input_processor import ProcessedRequest
from vcore.engine.output_processor import OutputProcessor
from vcore.engine.records import RequestRecord
from vcore.engine.remote.messages import AbortRequests, AddRequest, FinishRequest, Refused, ToEngine
from vcore.engine.request import FinishReason
from vcore.engine.request_state import RequestState, StepLatencies
from vcore.engine.step_output import StepOutput
from vcore.errors import EngineDeadError, RequestError, VcoreError
from vcore.outputs import RequestOutput
from vcore.sampling_params import SamplingParams

if TYPE_CHECKING:
    from vcore.tokenizer import Tokenizer

__all__ = ["OpenRequest", "OpenRequests", "OutputMode"]

OutputMode = Literal["cumulative", "delta", "final"]
"""What an output holds: everything so far, what is new since the one before, or everything at the end."""


_MANY_LOGPROBS = 2000
"""So many are read in some milliseconds."""


class OpenRequest:
    """One request, and the one who waits for its outputs.

    There is no queue: what comes while nobody asks adds up in the request's state, and the next output has all of it.
    """

    def __init__(self, state: RequestState, params: SamplingParams, on_drop: Callable[[OpenRequest], None]) -> None:
        """Wait for news of `state`; `on_drop` is told when nobody waits any more."""
        self.state = state
        self._on_drop = on_drop
        self.params = params
        self._has_news = False
        self._error: VcoreError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def next(self) -> RequestOutput:
        """The next output. Not to be called again after one that is `finished`.

        Raises:
            VcoreError: the request has failed.
        """
        while not self._has_news:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.state.unread_prompt_logprobs:
            await self._read_prompt_logprobs()
        self._has_news = False
        return self.state.output()

    async def _read_prompt_logprobs(self) -> None:
        """Have a thread make texts of a long prompt's log probabilities, which would hold the event loop for long."""
        state = self.state
        while (parts := state.unread_prompt_logprobs) and len(parts) * len(parts[0].token_ids) > _MANY_LOGPROBS:
            state.unread_prompt_logprobs = []
            read = await asyncio.to_thread(state.read_prompt_logprobs, parts)
            assert state.prompt_logprobs is not None
            state.prompt_logprobs += read

    def drop(self) -> None:
        """Nobody waits any more: if it has not ended, it is aborted."""
        self._on_drop(self)

    def tell(self) -> None:
        """There is news."""
        self._has_news = True
        self._wake()

    def fail(self, error: VcoreError) -> None:
        """Nothing comes any more; what has come is given out first."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class OpenRequests:
    """All requests in the engine. Belongs to the thread of the event loop."""

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        send: Callable[[ToEngine], None],
        on_finished: Callable[[RequestRecord], None],
    ) -> None:
        """Begin with none.

        Args:
            tokenizer: None if no text is to come out.
            send: sends a message to the engine.
            on_finished: told of each request that ends, for whatever reason.
        """
        self._send = send
        self._on_finished = on_finished
        self._outputs = OutputProcessor(tokenizer, lambda *finish: send(FinishRequest(*finish)))
        self._requests: dict[str, OpenRequest] = {}
        self._in_engine: set[str] = set()
        """Engine requests whose end the engine has not told: their ids cannot be given to others yet."""
        self._serial = itertools.count(1)

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, processed: ProcessedRequest, mode: OutputMode) -> OpenRequest:
        """Send a request to the engine.

        Raises:
            RequestError: its id is in use, or something in it cannot be sent.
        """
        request_id = processed.request_id
        if request_id in self._requests:
            raise RequestError(f"request {request_id!r} is open already; ids must be unique", param="request_id")
        processed = self._with_free_ids(processed)
        try:
            message = AddRequest.of(processed)
            self._send(message)
        except (TypeError, ValueError, OverflowError) as error:
            raise RequestError(f"request {request_id!r} cannot be sent to the engine: {error}") from error
        state = self._outputs.add(processed, stream=mode != "final", delta=mode == "delta")
        request = self._requests[request_id] = OpenRequest(state, processed.params, self._drop)
        self._in_engine.update(message.request_ids)
        return request

    def _with_free_ids(self, processed: ProcessedRequest) -> ProcessedRequest:
        """The same under other names in the engine, if one of an aborted request, say, has not ended there yet."""
        names = [request.request_id for request in processed.engine_requests]
        if self._in_engine.isdisjoint(names):
            return processed
        suffix = f"~{next(self._serial)}"
        renamed = (replace(request, request_id=request.request_id + suffix) for request in processed.engine_requests)
        return replace(processed, engine_requests=tuple(renamed))

    def _drop(self, request: OpenRequest) -> None:
        request_id = request.state.request_id
        if self._requests.get(request_id) is not request:
            return
        del self._requests[request_id]
        if engine_ids := self._outputs.forget([request_id]):
            self._send(AbortRequests(tuple(engine_ids)))
        self._record(request, FinishReason.ABORT)

    def abort(self, request_id: str) -> None:
        """End a request; who waits for it gets what there is, with the finish reason ``abort``. Unknown: nothing."""
        request = self._requests.get(request_id)
        if request is not None:
            unfinished = [one.engine_request_id for one in request.state.samples if one.finish_reason is None]
            self._send(AbortRequests(tuple(unfinished)))

    def take_in(self, output: StepOutput) -> StepLatencies:
        """Take in a step: wake who waits for something in it. How long its tokens took."""
        for state in self._outputs.take_in(output):
            request = self._requests[state.request_id]
            if state.finished:
                del self._requests[state.request_id]
                self._record(request)
            request.tell()
        self._in_engine.difference_update(output.finished)
        return self._outputs.latencies

    def refuse(self, refused: Refused) -> None:
        """The engine does not take a request."""
        self._in_engine.difference_update(refused.request_ids[refused.num_added :])
        state = self._outputs.find(refused.request_ids[0])
        if state is None:
            return  # nobody waits for it any more
        request = self._requests.pop(state.request_id)
        self._outputs.forget([state.request_id])
        request.fail(refused.error.error())

    def fail_all(self, reason: str) -> None:
        """The engine is gone, and all requests with it."""
        requests, self._requests = self._requests, {}
        self._outputs.forget(requests)
        self._in_engine.clear()
        for request in requests.values():
            self._record(request, FinishReason.ERROR)
            request.fail(EngineDeadError(f"the engine ended while the request ran: {reason}"))

    def _record(self, request: OpenRequest, reason: FinishReason | None = None) -> None:
        """Tell of the end of `request`; `reason` is that of samples which have not ended by themselves."""
        state = request.state
        if state.metrics.finished_time is None:
            state.metrics.finished_time = time.monotonic()
        self._on_finished(
            RequestRecord(
                request_id=state.request_id,
                priority=request.params.priority,
                num_prompt_tokens=len(state.prompt_token_ids),
                num_cached_tokens=state.num_cached_tokens,
                num_output_tokens=state.num_output_tokens,
                finish_reasons=tuple(sample.finish_reason or str(reason) for sample in state.samples),
                metrics=state.metrics,
                params=request.params,
                pooling=state.pooling,
            )
        )
