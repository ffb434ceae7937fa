"""`ConnectionLimits`: how many clients may be connected, and who makes room for another.

Anybody can open connections, with a key or without, and each takes a file handle and some memory. So there is a
most of them; and whoever holds many that ask for nothing must not keep others out. A connection *waits* while its next
request, or the rest of it, has not come. When all places are taken, the one that has waited longest since its last byte
gives way, which a client that keeps it for later does not mind: it connects again. Only if every connection is being
answered, a new one is refused.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["ConnectionLimits", "Droppable"]

logger = logging.getLogger(__name__)

_MAX_LINGERING = 64
"""Refused connections that stay for a moment to read why; beyond that there is no room for politeness."""
_LOG_EVERY_S = 60.0


class Droppable(Protocol):
    """A connection that can be ended."""

    def drop(self) -> None:
        """End it at once, with whatever it is doing."""


class ConnectionLimits:
    """All connections of one server. Every method takes constant time."""

    def __init__(self, max_connections: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with none.

        Args:
            max_connections: most at a time.
            clock: seconds, for how often refusals are logged.
        """
        self._max_connections = max_connections
        self._clock = clock
        self._open: set[Droppable] = set()
        self._waiting: dict[Droppable, None] = {}
        """In the order of their last bytes."""
        self._lingering: set[Droppable] = set()
        self._logged: float | None = None
        self.num_displaced = 0
        """Connections that were closed to make room, so far."""
        self.num_refused = 0

    @property
    def num_open(self) -> int:
        """How many connections have a place."""
        return len(self._open)

    def enter(self, connection: Droppable) -> bool:
        """Give a new connection a place, if need be that of the one that has waited longest; whether it has one."""
        if len(self._open) >= self._max_connections:
            longest = next(iter(self._waiting), None)
            if longest is None:
                self.num_refused += 1
                self._log_refusal()
                return False
            self.num_displaced += 1
            self.leave(longest)
            longest.drop()
        self._open.add(connection)
        self._waiting[connection] = None
        return True

    def wait(self, connection: Droppable) -> None:
        """It has sent something, or got its answer, and is to send more."""
        if connection in self._open:
            self._waiting.pop(connection, None)
            self._waiting[connection] = None

    def work(self, connection: Droppable) -> None:
        """Its request is whole, and is being answered."""
        self._waiting.pop(connection, None)

    def linger(self, connection: Droppable) -> bool:
        """Whether a connection that was refused may stay until it has read so."""
        if len(self._lingering) >= _MAX_LINGERING:
            return False
        self._lingering.add(connection)
        return True

    def leave(self, connection: Droppable) -> None:
        """It has ended. Harmless if it had no place."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)
        self._lingering.discard(connection)

    def _log_refusal(self) -> None:
        now = self._clock()
        if self._logged is None or now - self._logged >= _LOG_EVERY_S:
            self._logged = now
            logger.warning(
                "all %d connections are being answered; more are refused (max_connections)", self._max_connections
            )
