"""`EngineRequest`: what is asked of the engine core. `RequestStatus`: the states, and the one table of transitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from vcore.pooling_params import PoolingMode
from vcore.sampling_params import SamplingParams

__all__ = ["TRANSITIONS", "EngineRequest", "FinishReason", "RequestStatus"]


class FinishReason(StrEnum):
    """Why a request ended."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


class RequestStatus(Enum):
    """Where a request is."""

    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"
    FINISHED = "finished"


TRANSITIONS: dict[RequestStatus, frozenset[RequestStatus]] = {
    RequestStatus.WAITING: frozenset({RequestStatus.RUNNING, RequestStatus.FINISHED}),
    RequestStatus.RUNNING: frozenset({RequestStatus.PREEMPTED, RequestStatus.FINISHED}),
    RequestStatus.PREEMPTED: frozenset({RequestStatus.RUNNING, RequestStatus.FINISHED}),
    RequestStatus.FINISHED: frozenset(),
}
"""From a status to those that may follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """One sample to generate, as it enters the engine core: checked, tokenised, plain data.

    A user's request with ``n`` samples is `n` of these, with sample indices 0 to n - 1.
    """

    request_id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    max_tokens: int
    """`SamplingParams.max_tokens`, cut to what the model's length leaves; 0 for one that pools."""
    arrival_time: float
    """Seconds, monotonic."""
    eos_token_ids: tuple[int, ...] = ()
    """The model's ends of sequence; empty if EOS is ignored."""
    seed: int = 0
    """`SamplingParams.seed`, or one drawn for the request."""
    sample_index: int = 0
    bad_words_token_ids: tuple[tuple[int, ...], ...] = ()
    """`SamplingParams.bad_words` as token ids, one sequence a spelling (with and without a leading space)."""
    extra_keys: tuple[str, ...] = field(default=())
    """What besides tokens tells cached blocks apart: the cache salt, and later adapters and media."""
    prepared: Mapping[str, object] | None = None
    """By logits processor: what it prepared for the request (`RequestPreparer`)."""
    pooling: PoolingMode | None = None
    """It samples nothing, and ends with a vector of its prompt's hidden states; None for one that generates."""
