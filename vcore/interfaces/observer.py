"""What an observer implements. It runs off the step loop, behind a bounded queue: it can be late, never in the way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Observer", "ObserverContext", "ObserverEvent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverContext:
    """What the core tells an observer when it builds it."""

    engine_id: str


@dataclass(frozen=True, slots=True)
class ObserverEvent:
    """Something that happened in the engine."""

    name: str
    """``step`` or ``finished``."""
    time: float
    """Seconds, monotonic."""
    fields: Mapping[str, object]
    """``step``: ``num_tokens``, ``num_started``, ``num_finished`` and ``stats`` (a `vcore.scheduler.SchedulerStats`).
    ``finished``: ``request_id``, ``reason`` and ``num_preemptions``. Both: ``dropped``, if events were lost."""


class Observer(ABC):
    """Gets the engine's events (API 1.0).

    The plugin's `load` is called with ``options`` and ``context`` (an `ObserverContext`).
    """

    @abstractmethod
    def on_event(self, event: ObserverEvent) -> None:
        """One event. If the queue was full, the next one's fields say how many are missing (``dropped``)."""

    def close(self) -> None:
        """The engine shuts down; no event follows."""
