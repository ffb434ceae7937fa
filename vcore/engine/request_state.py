"""What the output processor keeps of a request: `RequestState`, with a `SampleState` for each of its samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from vcore.engine.detokenizer import Detokenizer
from vcore.engine.pooling import PooledOutput, finish_vector
from vcore.engine.request import FinishReason
from vcore.interfaces.step import TokenLogprobs
from vcore.outputs import CompletionOutput, Logprob, RequestMetrics, RequestOutput
from vcore.pooling_params import PoolingParams

__all__ = ["RequestState", "SampleState", "StepLatencies", "logprob_dict"]


def logprob_dict(logprobs: TokenLogprobs, decode: Callable[[int], str] | None) -> dict[int, Logprob]:
    """One position's log probabilities by token id, the token itself first.

    Args:
        logprobs: as the step gave them; the token itself may stand again among the most likely ones.
        decode: the text of one token id, or None to leave texts out.
    """
    entries: dict[int, Logprob] = {}
    for token_id, logprob, rank in zip(logprobs.token_ids, logprobs.logprobs, logprobs.ranks, strict=True):
        if token_id not in entries:
            entries[token_id] = Logprob(logprob, rank, None if decode is None else decode(token_id))
    return entries


@dataclass(slots=True)
class StepLatencies:
    """How long the tokens of one step took, in seconds."""

    first_token: list[float] = field(default_factory=list)
    """Since their requests arrived, of those that are the first."""
    inter_token: list[float] = field(default_factory=list)
    """Since the one before, of first samples."""


@dataclass(slots=True)
class SampleState:
    """One sample: its tokens so far and what is shown of them."""

    request: RequestState
    index: int
    engine_request_id: str
    detokenizer: Detokenizer | None
    """None if no text is wanted."""
    shows_stop_token: bool = False
    """Whether the text of the token that ends it is part of the output."""
    token_ids: list[int] = field(default_factory=list)
    """Those that were not taken."""
    num_tokens: int = 0
    """All of them, taken or not."""
    logprobs: list[dict[int, Logprob]] | None = None
    """None if they were not asked for; else one entry for each of `token_ids`."""
    cumulative_logprob: float | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    error_param: str | None = None
    last_token_time: float = 0.0
    """Seconds, monotonic; meaningless before the first token."""
    end_is_taken: bool = False
    """Whether `take` has given out its end."""

    def append(self, token_id: int, *, shown: bool) -> str | None:
        """Take the next token, and return the stop string that it completes, if any.

        Args:
            token_id: the token.
            shown: whether its text is part of the output; False for a token that ended the request.
        """
        self.token_ids.append(token_id)
        self.num_tokens += 1
        if self.detokenizer is None:
            return None
        if shown:
            return self.detokenizer.append(token_id)
        self.detokenizer.skip()
        return None

    def add_logprobs(self, logprobs: TokenLogprobs, decode: Callable[[int], str] | None) -> None:
        """Take the log probabilities at the position of the last token."""
        assert self.logprobs is not None
        assert self.cumulative_logprob is not None
        self.logprobs.append(logprob_dict(logprobs, decode))
        self.cumulative_logprob += logprobs.logprobs[0]

    def finish(self, finish_reason: str, stop_reason: int | str | None) -> None:
        """No token follows. A stop string that only held-back text completes still counts, unless it failed."""
        stop = None if self.detokenizer is None else self.detokenizer.finish()
        if stop is not None and finish_reason in (FinishReason.STOP, FinishReason.LENGTH):
            finish_reason, stop_reason = str(FinishReason.STOP), stop
        self.finish_reason, self.stop_reason = finish_reason, stop_reason

    def output(self) -> CompletionOutput:
        """The sample so far, sharing no list with this object."""
        return CompletionOutput(
            index=self.index,
            text="" if self.detokenizer is None else self.detokenizer.text,
            token_ids=self.token_ids.copy(),
            cumulative_logprob=self.cumulative_logprob,
            logprobs=None if self.logprobs is None else self.logprobs.copy(),
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            error_param=self.error_param,
        )

    @property
    def has_news(self) -> bool:
        """Whether there is a token, or the end, that `take` has not given out."""
        return bool(self.token_ids) or (self.finish_reason is not None and not self.end_is_taken)

    def take(self) -> CompletionOutput:
        """What is new since the last call, and is then forgotten here; `cumulative_logprob` is of all tokens."""
        output = CompletionOutput(
            index=self.index,
            text="" if self.detokenizer is None else self.detokenizer.take(),
            token_ids=self.token_ids,
            cumulative_logprob=self.cumulative_logprob,
            logprobs=self.logprobs,
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            error_param=self.error_param,
        )
        self.token_ids = []
        self.logprobs = None if self.logprobs is None else []
        self.end_is_taken = self.finish_reason is not None
        return output


@dataclass(slots=True)
class RequestState:
    """A request: its samples, and what they share."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    metrics: RequestMetrics
    stream: bool
    """Whether every change is told, or only the end."""
    delta: bool
    """Whether an output holds only what is new since the one before it."""
    decode: Callable[[int], str] | None
    """The text of one token id, for logprobs."""
    samples: list[SampleState] = field(default_factory=list)
    num_cached_tokens: int = 0
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    """None if they were not asked for; the first entry is None."""
    unread_prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    """What came of them, and is to follow in `prompt_logprobs` by the next output."""
    num_unfinished: int = 0
    pooling: PoolingParams | None = None
    """None for a request that generates."""
    pooled: bytes | None = None
    """What the engine pooled, once it has."""

    def start(self, sample: SampleState, time: float, num_cached_tokens: int) -> None:
        """`sample` was admitted at `time`, with so many prompt tokens from the prefix cache."""
        if self.metrics.first_scheduled_time is None:
            self.metrics.first_scheduled_time = time
        if sample.index == 0:
            self.num_cached_tokens = num_cached_tokens

    def tick(self, sample: SampleState, time: float, latencies: StepLatencies) -> None:
        """`sample` got a token at `time`; how long it took goes into `latencies`, too."""
        metrics = self.metrics
        if metrics.first_token_time is None:
            metrics.first_token_time = time
            latencies.first_token.append(time - metrics.arrival_time)
        if sample.index == 0 and sample.num_tokens > 1:
            gap = time - sample.last_token_time
            metrics.inter_token_latencies.append(gap)
            latencies.inter_token.append(gap)
        sample.last_token_time = metrics.last_token_time = time

    def add_prompt_logprobs(self, parts: list[TokenLogprobs]) -> None:
        """Take the next part of the prompt's log probabilities, as they are."""
        self.unread_prompt_logprobs += parts

    def read_prompt_logprobs(self, parts: Sequence[TokenLogprobs]) -> list[dict[int, Logprob]]:
        """Parts as an output has them, with texts; changes nothing, so that any thread may."""
        return [logprob_dict(part, self.decode) for part in parts]

    def end(self, sample: SampleState, time: float) -> None:
        """`sample` has finished."""
        self.num_unfinished -= 1
        if self.num_unfinished == 0:
            self.metrics.finished_time = time

    @property
    def finished(self) -> bool:
        """Whether every sample has."""
        return self.num_unfinished == 0

    @property
    def num_output_tokens(self) -> int:
        """Tokens of all samples so far."""
        return sum(sample.num_tokens for sample in self.samples)

    def output(self) -> RequestOutput:
        """The request so far, or what is new of it, sharing no list that still changes with this object."""
        if self.pooling is not None:
            return self._embedded(self.pooling)
        if self.unread_prompt_logprobs and self.prompt_logprobs is not None:
            parts, self.unread_prompt_logprobs = self.unread_prompt_logprobs, []
            self.prompt_logprobs += self.read_prompt_logprobs(parts)
        return self._take() if self.delta else self._whole()

    def _take(self) -> RequestOutput:
        """The samples that have something new, and of each only that; so too of the prompt's log probabilities."""
        finished, prompt_logprobs = self.finished, self.prompt_logprobs
        self.prompt_logprobs = None if prompt_logprobs is None else []
        return RequestOutput(
            request_id=self.request_id,
            prompt=self.prompt,
            prompt_token_ids=self.prompt_token_ids,
            outputs=[sample.take() for sample in self.samples if sample.has_news],
            finished=finished,
            num_cached_tokens=self.num_cached_tokens,
            prompt_logprobs=prompt_logprobs or None,
            metrics=self.metrics if finished else None,
        )

    def _whole(self) -> RequestOutput:
        finished = self.finished
        return RequestOutput(
            request_id=self.request_id,
            prompt=self.prompt,
            prompt_token_ids=self.prompt_token_ids,
            outputs=[sample.output() for sample in self.samples],
            finished=finished,
            num_cached_tokens=self.num_cached_tokens,
            prompt_logprobs=None if self.prompt_logprobs is None else self.prompt_logprobs.copy(),
            metrics=self.metrics if finished else _copy(self.metrics),
        )

    def _embedded(self, params: PoolingParams) -> PooledOutput:
        return PooledOutput(
            request_id=self.request_id,
            prompt=self.prompt,
            prompt_token_ids=self.prompt_token_ids,
            outputs=[sample.output() for sample in self.samples],
            finished=self.finished,
            num_cached_tokens=self.num_cached_tokens,
            metrics=self.metrics,
            embedding=None if self.pooled is None else finish_vector(self.pooled, params),
        )


def _copy(metrics: RequestMetrics) -> RequestMetrics:
    """A snapshot that later tokens do not change."""
    return replace(metrics, inter_token_latencies=metrics.inter_token_latencies.copy())
