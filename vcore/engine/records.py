"""What `AsyncLLM` tells of itself: plain records, and the `EngineListener` that is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from vcore.outputs import RequestMetrics
from vcore.pooling_params import PoolingParams
from vcore.sampling_params import SamplingParams
from vcore.scheduler.settings import SchedulerStats

__all__ = ["EngineListener", "EngineState", "EngineStatus", "RequestRecord", "StepRecord"]

EngineState = Literal["starting", "ready", "restarting", "dead", "closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """How the engine is."""

    state: EngineState
    """``starting`` before it was ready for the first time; ``dead`` if it will not be started again."""
    reason: str | None = None
    """Why it is not ready, or why it died last."""
    restarts: int = 0
    """How often it was started again."""
    faults: tuple[str, ...] = ()
    """Policies that failed and were replaced by the core's own order, one line each."""
    failed_steps: int = 0
    """Steps that raised since its last start; their requests were ended, others went on."""
    pid: int | None = None
    """Its process; None if it has none of its own, or is not running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One step of the engine."""

    index: int
    """Counts steps since the engine's start, from 1; 0 for a report of endings without a computation."""
    start: float
    """Seconds, monotonic: when the loop began with it. Where steps overlap on the device, it is collected here."""
    end: float
    num_prompt_tokens: int
    """Tokens computed for requests that begin or had several: of prompts, or what a preempted one computes again."""
    num_decodes: int
    """Other requests, with one token to compute."""
    num_requests: int
    """Requests that were computed."""
    num_output_tokens: int = 0
    """Tokens that were generated."""
    first_token_latencies: Sequence[float] = ()
    """Of requests that got their first token: seconds since they arrived."""
    inter_token_latencies: Sequence[float] = ()
    """Of all other tokens of first samples: seconds since the one before."""
    stats: SchedulerStats
    """Counts after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """A request that has ended, for whatever reason."""

    request_id: str
    priority: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int
    """Of all samples."""
    finish_reasons: tuple[str, ...]
    """By sample: ``stop``, ``length``, ``abort`` (it was no longer wanted) or ``error``."""
    metrics: RequestMetrics
    params: SamplingParams
    """Of one that embeds, only what policies read of it."""
    pooling: PoolingParams | None = None
    """Of a request that embeds: it has no tokens, and so no time to the first."""


class EngineListener(Protocol):
    """Told of the engine's work, in the thread of the event loop: it must not block. If it raises, it hears no more."""

    def on_step(self, record: StepRecord) -> None:
        """A step was computed."""
        ...

    def on_finished(self, record: RequestRecord) -> None:
        """A request has ended."""
        ...

    def on_engine(self, status: EngineStatus) -> None:
        """The engine's state has changed."""
        ...
