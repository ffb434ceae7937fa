"""`Trace`: requests in the order in which they arrived, whatever file they came from."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Trace", "TraceRequest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRequest:
    """One request as it was recorded."""

    arrival_s: float
    """Seconds after the trace's first request."""
    input_length: int
    """Prompt tokens."""
    output_length: int
    """Generated tokens, 1 or more: where none were recorded, 1."""
    block_ids: tuple[int, ...] = ()
    """One id for each block of the prompt, the last one partial; equal ids at equal places have all that is before
    them in common. Empty if the trace does not say what prompts share."""
    text: str | None = None
    """The prompt itself, where the trace has it."""
    session_id: str | None = None
    """The conversation that it belongs to."""
    tenant: str | None = None
    """Who sent it."""
    priority: int = 0
    """Lower is more urgent."""
    cache_ttl: float | None = None
    """Seconds for which it asks that its prefix be kept."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests by arrival."""

    name: str
    """The file's name."""
    format: str
    """As `vcore.traces.TRACE_FORMATS` has it."""
    requests: tuple[TraceRequest, ...]
    """By `arrival_s`; the first is 0."""
    block_size: int | None = None
    """Prompt tokens of one of `TraceRequest.block_ids`; None if there are none."""

    @property
    def duration_s(self) -> float:
        """Seconds from the first arrival to the last."""
        return self.requests[-1].arrival_s

    @property
    def rate(self) -> float | None:
        """Mean requests a second; None if all arrive at once."""
        return (len(self.requests) - 1) / self.duration_s if self.duration_s > 0 else None
