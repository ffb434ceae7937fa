"""`StepOutput`: what one engine step gives to the output processor, in columns rather than an object a request."""

from __future__ import annotations

from dataclasses import dataclass, field

from vcore.engine.request import FinishReason
from vcore.interfaces.step import TokenLogprobs

__all__ = ["Finished", "Started", "StepOutput"]


@dataclass(frozen=True, slots=True)
class Started:
    """A request was admitted for the first time."""

    time: float
    """Seconds, monotonic."""
    num_cached_tokens: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A request ended in this step."""

    reason: FinishReason
    stop_reason: int | str | None
    num_preemptions: int


@dataclass(slots=True)
class StepOutput:
    """New tokens and endings. `request_ids` and `token_ids` are parallel."""

    request_ids: list[str] = field(default_factory=list)
    """Requests that got tokens in this step; a request stands here once for each token."""
    token_ids: list[int] = field(default_factory=list)
    started: dict[str, Started] = field(default_factory=dict)
    finished: dict[str, Finished] = field(default_factory=dict)
    """Requests that ended, with or without a token in this step. Their tokens above come first."""
    error_params: dict[str, str] = field(default_factory=dict)
    """Of requests that ended with an error for which they are themselves to blame: the field that is wrong; empty if
    several contradict each other."""
    logprobs: dict[str, list[TokenLogprobs]] = field(default_factory=dict)
    prompt_logprobs: dict[str, list[TokenLogprobs]] = field(default_factory=dict)
    """Parts of a prompt's logprobs, in order, as chunks are computed."""
    vectors: dict[str, bytes] = field(default_factory=dict)
    """Of requests that pool, each with its end: float32 [hidden_size] in this machine's order of bytes."""
    time: float = 0.0
    """When the step's tokens were known; seconds, monotonic."""
    step_id: int = 0
    """Counts steps from 1; 0 if nothing was computed."""
    num_requests: int = 0
    """Requests that were computed, whether they got a token or not."""
    num_prompt_tokens: int = 0
    """Tokens computed for requests that begin or had several: of prompts, or what a preempted one computes again."""
    num_decodes: int = 0
    """Other requests, with one token to compute: the next after the one they sampled last, or a prompt's last chunk."""
