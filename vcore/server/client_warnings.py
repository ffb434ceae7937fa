"""`ClientWarnings`: what clients can make a server log, a few lines of it a minute.

Anybody who reaches the port can send what is no HTTP, with a key or without, as fast as the network carries it. A line
for each would fill the log and hide what else is in it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

__all__ = ["ClientWarnings"]

_MOST = 5
_EVERY_S = 60.0

CallLater = Callable[[float, Callable[[], None]], object]
"""Calls something after so many seconds, as an event loop does."""


class ClientWarnings:
    """Of the warnings in a minute the first few are logged; at its end, how many more there were.

    Errors pass: they are faults of the server, which clients cannot cause at will.
    """

    def __init__(self, target: logging.Logger, call_later: CallLater) -> None:
        """Begin a minute with the first warning.

        Args:
            target: where they go.
            call_later: of the event loop that they come from.
        """
        self._target = target
        self._call_later = call_later
        self._num_warnings = 0
        """In the minute that runs."""
        self._last: logging.LogRecord
        # Of its own, and not by its name: what limits one server's warnings does not limit another's in this process.
        self.logger = logging.Logger(target.name)
        """What to warn with; it has the level and the handlers of the target."""
        self.logger.parent = target
        self.logger.addFilter(self._lets_pass)

    def _lets_pass(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        self._num_warnings += 1
        if self._num_warnings == 1:
            self._call_later(_EVERY_S, self._end_minute)
        self._last = record
        return self._num_warnings <= _MOST

    def _end_minute(self) -> None:
        num_more, self._num_warnings = self._num_warnings - _MOST, 0
        if num_more > 0:
            last = self._last.getMessage()
            self._target.warning("%d more like these within %g s; the last: %s", num_more, _EVERY_S, last)
