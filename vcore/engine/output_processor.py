"""`OutputProcessor`: from the engine core's tokens to `RequestOutput`.

It stands outside the core's step, and may stand in another process: all it needs of the core is a way to
say that a stop string was found. It knows neither the scheduler nor the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from vcore.engine.detokenizer import Detokenizer
from vcore.engine.input_processor import ProcessedRequest
from vcore.engine.request import EngineRequest, FinishReason
from vcore.engine.request_state import RequestState, SampleState, StepLatencies
from vcore.engine.step_output import Finished, StepOutput
from vcore.engine.stop_strings import StopStrings
from vcore.outputs import RequestMetrics, RequestOutput

if TYPE_CHECKING:
    from vcore.tokenizer.tokenizer import Tokenizer

__all__ = ["FinishCallback", "OutputProcessor"]

FinishCallback = Callable[[str, int, str | None], None]
"""`EngineCore.finish`: called with an engine request's id, its number of tokens, and the stop string."""


class OutputProcessor:
    """Collects tokens into texts, finds stop strings, and joins the samples of a request. Not thread safe."""

    def __init__(self, tokenizer: Tokenizer | None, finish: FinishCallback) -> None:
        """Begin with no requests.

        Args:
            tokenizer: None if no text is to come out.
            finish: tells the core that a stop string ended a request.
        """
        self._tokenizer = tokenizer
        self._finish = finish
        self._requests: dict[str, RequestState] = {}
        self._samples: dict[str, SampleState] = {}
        """By the id of the engine request."""
        self.latencies = StepLatencies()
        """Of the step that was taken in last."""

    @property
    def num_requests(self) -> int:
        """How many requests are unfinished."""
        return len(self._requests)

    def add(self, processed: ProcessedRequest, *, stream: bool = False, delta: bool = False) -> RequestState:
        """Expect the tokens of a request.

        Args:
            processed: as it goes to the core.
            stream: whether `process` tells every change, or only the end.
            delta: whether an output holds only what is new since the one before it.

        Returns:
            What is kept of the request, as `take_in` tells of it.
        """
        params = processed.params
        tokenizer = self._tokenizer if params.detokenize else None
        request = RequestState(
            request_id=processed.request_id,
            prompt=processed.prompt,
            prompt_token_ids=processed.prompt_token_ids,
            metrics=RequestMetrics(arrival_time=processed.arrival_time),
            stream=stream,
            delta=delta,
            decode=None if tokenizer is None else tokenizer.id_to_text,
            prompt_logprobs=None if params.prompt_logprobs is None else [None],
            pooling=processed.pooling,
        )
        stops = StopStrings(params.stop) if params.stop else None
        for engine_request in processed.engine_requests:
            sample = self._make_sample(request, engine_request, stops)
            request.samples.append(sample)
            self._samples[engine_request.request_id] = sample
        request.num_unfinished = len(request.samples)
        self._requests[request.request_id] = request
        return request

    def _make_sample(
        self, request: RequestState, engine_request: EngineRequest, stops: StopStrings | None
    ) -> SampleState:
        params = engine_request.params
        detokenizer = None
        if self._tokenizer is not None and params.detokenize:
            stream = self._tokenizer.new_stream(
                engine_request.prompt_token_ids, skip_special_tokens=params.skip_special_tokens
            )
            detokenizer = Detokenizer(stream, params, stops)
        wanted = params.logprobs is not None
        return SampleState(
            request=request,
            index=engine_request.sample_index,
            engine_request_id=engine_request.request_id,
            detokenizer=detokenizer,
            shows_stop_token=params.include_stop_str_in_output,
            logprobs=[] if wanted else None,
            cumulative_logprob=0.0 if wanted else None,
        )

    def find(self, engine_request_id: str) -> RequestState | None:
        """The request of an unfinished engine request; None if there is none of that id."""
        sample = self._samples.get(engine_request_id)
        return None if sample is None else sample.request

    def forget(self, request_ids: Iterable[str]) -> list[str]:
        """Drop requests; whatever still comes for them is ignored. Unknown ids are ignored.

        Returns:
            The ids of their unfinished engine requests, for `EngineCore.abort`.
        """
        dropped: list[str] = []
        for request_id in request_ids:
            request = self._requests.pop(request_id, None)
            for sample in request.samples if request is not None else ():
                if self._samples.pop(sample.engine_request_id, None) is not None:
                    dropped.append(sample.engine_request_id)
        return dropped

    def process(self, step: StepOutput) -> list[RequestOutput]:
        """Take in a step.

        Returns:
            The requests that changed (of those that do not stream: that finished), each with all of its
            samples and all text and tokens so far, or, of those added with `delta`, with what is new.
        """
        return [request.output() for request in self.take_in(step)]

    def take_in(self, step: StepOutput) -> list[RequestState]:
        """As `process`, for who asks for a request's output only when somebody wants it.

        What comes until then adds up in `RequestState`, however many steps that takes.
        """
        changed: dict[str, RequestState] = {}
        self.latencies = StepLatencies()
        for engine_id, started in step.started.items():
            if (sample := self._samples.get(engine_id)) is not None:
                sample.request.start(sample, started.time, started.num_cached_tokens)
        for engine_id, parts in step.prompt_logprobs.items():
            if (sample := self._samples.get(engine_id)) is not None:
                sample.request.add_prompt_logprobs(parts)
        for engine_id, vector in step.vectors.items():
            if (sample := self._samples.get(engine_id)) is not None:
                sample.request.pooled = vector
        self._take_tokens(step, changed)
        for engine_id, finished in step.finished.items():
            if (sample := self._samples.get(engine_id)) is not None:
                self._end(sample, finished.reason, finished.stop_reason, step)
                changed[sample.request.request_id] = sample.request
        for request_id, request in changed.items():
            if request.finished:
                del self._requests[request_id]
        return [request for request in changed.values() if request.stream or request.finished]

    def _take_tokens(self, step: StepOutput, changed: dict[str, RequestState]) -> None:
        ending = _stop_token_positions(step)
        num_taken: dict[str, int] = {}
        samples, logprobs, time, latencies = self._samples, step.logprobs, step.time, self.latencies
        for position, (engine_id, token_id) in enumerate(zip(step.request_ids, step.token_ids, strict=True)):
            sample = samples.get(engine_id)
            if sample is None:  # ended by a stop string, or forgotten, while tokens were in flight
                continue
            request = sample.request
            stop = sample.append(token_id, shown=position not in ending or sample.shows_stop_token)
            request.tick(sample, time, latencies)
            changed[request.request_id] = request
            if sample.logprobs is not None and engine_id in logprobs:
                index = num_taken.get(engine_id, 0)
                num_taken[engine_id] = index + 1
                sample.add_logprobs(logprobs[engine_id][index], request.decode)
            if stop is not None:
                self._end(sample, FinishReason.STOP, stop, step)
                if engine_id not in step.finished:
                    self._finish(engine_id, sample.num_tokens, stop)

    def _end(self, sample: SampleState, reason: FinishReason, stop_reason: int | str | None, step: StepOutput) -> None:
        del self._samples[sample.engine_request_id]
        told: Finished | None = step.finished.get(sample.engine_request_id)
        sample.request.metrics.num_preemptions += 0 if told is None else told.num_preemptions
        sample.finish(str(reason), stop_reason)
        sample.error_param = step.error_params.get(sample.engine_request_id)
        sample.request.end(sample, step.time)


def _stop_token_positions(step: StepOutput) -> set[int]:
    """Where in `step` stand the tokens that ended a request: the last one of each that the core stopped."""
    stopped = {engine_id for engine_id, end in step.finished.items() if end.reason is FinishReason.STOP}
    if not stopped:
        return set()
    last = {engine_id: i for i, engine_id in enumerate(step.request_ids) if engine_id in stopped}
    return set(last.values())
