"""What a caller gets back: plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CompletionOutput", "EmbeddingOutput", "Logprob", "RequestMetrics", "RequestOutput"]


@dataclass(slots=True)
class Logprob:
    """The log probability of one token at one position."""

    logprob: float
    rank: int | None = None
    """1 for the most likely token at the position."""
    decoded_token: str | None = None


@dataclass(slots=True)
class CompletionOutput:
    """One sample of a request."""

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    """The sum over `token_ids`; None unless logprobs were asked for."""
    logprobs: list[dict[int, Logprob]] | None = None
    """One entry a token, by token id."""
    finish_reason: str | None = None
    """``stop``, ``length``, ``abort`` or ``error``; None while it runs."""
    stop_reason: int | str | None = None
    """The stop string or stop token id that ended it; None for EOS; the message for ``error``."""
    error_param: str | None = None
    """With the finish reason ``error``: the field of the request that is to blame, empty if several contradict each
    other; None if the engine is."""

    @property
    def finished(self) -> bool:
        """Whether no token follows."""
        return self.finish_reason is not None


@dataclass(slots=True)
class RequestMetrics:
    """When things happened, in seconds on the monotonic clock."""

    arrival_time: float
    first_scheduled_time: float | None = None
    first_token_time: float | None = None
    last_token_time: float | None = None
    finished_time: float | None = None
    num_preemptions: int = 0
    inter_token_latencies: list[float] = field(default_factory=list)
    """Seconds between consecutive tokens of the first sample."""

    @property
    def queue_time(self) -> float | None:
        """Seconds from arrival to the first step."""
        return None if self.first_scheduled_time is None else self.first_scheduled_time - self.arrival_time

    @property
    def ttft(self) -> float | None:
        """Seconds from arrival to the first token."""
        return None if self.first_token_time is None else self.first_token_time - self.arrival_time

    @property
    def mean_itl(self) -> float | None:
        """Mean seconds between tokens; None with fewer than two."""
        times = self.inter_token_latencies
        return sum(times) / len(times) if times else None


@dataclass(slots=True)
class RequestOutput:
    """A request with all of its samples so far."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool
    num_cached_tokens: int = 0
    """Prompt tokens that came from the prefix cache."""
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    """One entry a prompt token; None for the first."""
    metrics: RequestMetrics | None = None


@dataclass(slots=True)
class EmbeddingOutput:
    """The embedding of one prompt."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    embedding: NDArray[np.float32] | None
    """float32 [dimensions]; None if there is none, for which `error` has the reason."""
    num_cached_tokens: int = 0
    """Prompt tokens that came from the prefix cache."""
    finish_reason: str = "stop"
    """``stop``, ``abort`` or ``error``."""
    error: str | None = None
    metrics: RequestMetrics | None = None

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.prompt_token_ids)
