"""`RequestRecord`: what was seen of one request, and the times between. All times are of the monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["RequestRecord"]


@dataclass(slots=True)
class RequestRecord:
    """One request of a load. A target adds tokens as they arrive; the runner sets the rest."""

    due: float
    """When it was to be sent."""
    issued: float = 0.0
    """When the generator came to it; later than `due` by what the generator lags behind."""
    started: float = 0.0
    """When it was sent; later than `issued` by the wait for a place under a limit of concurrency."""
    ended: float = 0.0
    times: list[float] = field(default_factory=list)
    """When tokens arrived."""
    counts: list[int] = field(default_factory=list)
    """How many arrived then; more than 1 where a server sends several in one piece."""
    num_prompt_tokens: int | None = None
    num_output_tokens: int = 0
    """As the server states it; where it does not, as counted."""
    num_cached_tokens: int = 0
    num_wanted_tokens: int = 0
    """How many were asked for."""
    usage_stated: bool = True
    """Whether the server stated how many tokens it generated."""
    finish_reason: str | None = None
    queue_s: float | None = None
    """Seconds that it waited in the engine for its first step, where the target knows."""
    error: str | None = None
    """The kind of failure; None if it went well."""
    message: str | None = None
    """What was said about it."""

    def add(self, time: float, count: int) -> None:
        """Tokens have arrived."""
        self.times.append(time)
        self.counts.append(count)

    @property
    def ok(self) -> bool:
        """Whether it came to its end."""
        return self.error is None

    @property
    def lag(self) -> float:
        """Seconds by which the generator sent it late. They count in all latencies."""
        return self.issued - self.due

    @property
    def held(self) -> float:
        """Seconds that it waited for a place under the limit of concurrency. They count in no latency."""
        return self.started - self.issued

    @property
    def num_counted(self) -> int:
        """Tokens that were seen to arrive."""
        return sum(self.counts)

    @property
    def ttft(self) -> float:
        """Seconds to the first token."""
        return self.times[0] - self.due - self.held

    @property
    def e2e(self) -> float:
        """Seconds to the last token."""
        return self.times[-1] - self.due - self.held

    @property
    def gaps(self) -> list[float]:
        """Seconds between one arrival of tokens and the next."""
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]

    @property
    def tpot(self) -> float | None:
        """Mean seconds a token after the first piece; None if nothing came after it.

        Unlike the gaps it does not depend on how tokens are packed into pieces.
        """
        later = self.num_output_tokens - self.counts[0]
        return (self.times[-1] - self.times[0]) / later if later > 0 and len(self.times) > 1 else None
