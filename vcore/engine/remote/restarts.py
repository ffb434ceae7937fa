"""`RestartPolicy`, when a dead engine is started again, and `BackOff`, which follows it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BackOff", "RestartPolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How an engine that has died is started again. Times are seconds."""

    enabled: bool = True
    """If not, an engine that has died stays dead."""
    first_delay: float = 1.0
    """Before the first attempt; doubled with each one after it."""
    max_delay: float = 60.0
    healthy_after: float = 60.0
    """An engine that ran for so long after its first step was healthy: the delays and the count of failures begin anew.
    One that waits for its first request has yet to show that it survives it."""
    healthy_idle_after: float = 600.0
    """So was one that was ready for so long, whether it worked or not: what ends engines so seldom is no loop."""
    max_failures: int | None = 5
    """So many starts in a row that fail, or make an engine that ends before it was healthy, and it is given up. None:
    never."""


class BackOff:
    """The delays before the attempts to start an engine again."""

    def __init__(self, policy: RestartPolicy) -> None:
        """Begin with the first delay."""
        self._policy = policy
        self._delay = policy.first_delay
        self._num_failures = 0

    def engine_ran(self, working: float, ready: float) -> None:
        """An engine has died: so many seconds after its first step, 0 if it did none, and after it was ready."""
        if working >= self._policy.healthy_after or ready >= self._policy.healthy_idle_after:
            self._num_failures = 0
            self._delay = self._policy.first_delay
        else:
            self._num_failures += 1

    def start_failed(self) -> None:
        """An attempt failed."""
        self._num_failures += 1

    def next_delay(self) -> float | None:
        """Seconds to wait before the next attempt; None if there is to be none."""
        if not self._policy.enabled or self._are_too_many():
            return None
        delay = min(self._delay, self._policy.max_delay)
        self._delay = delay * 2
        return delay

    @property
    def verdict(self) -> str:
        """Why there is to be no other attempt; empty if there may be one, or there never was to be one."""
        if not self._policy.enabled or not self._are_too_many():
            return ""
        return (
            f"given up, as the last {self._num_failures} starts gave no engine that worked for "
            f"{self._policy.healthy_after:g} s"
        )

    def _are_too_many(self) -> bool:
        return self._policy.max_failures is not None and self._num_failures >= self._policy.max_failures
