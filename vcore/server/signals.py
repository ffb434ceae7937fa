"""`Signals`: where SIGINT and SIGTERM go while a server starts, and while it serves."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

__all__ = ["Signals"]

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """At first they end the start; later they go to the server, also those in between."""

    def __init__(self, starting: asyncio.Future[None]) -> None:
        """They end `starting`, as long as there is no other handler."""
        self._starting = starting
        self._handler: Callable[[], object] | None = None
        self._num_late = 0
        """Those that came too late to end the start, and before there was a handler."""

    @contextmanager
    def taken(self) -> Iterator[Self]:
        """Take them in the running event loop while the block runs, in the place of whatever they did."""
        loop = asyncio.get_running_loop()
        for number in _NUMBERS:
            loop.add_signal_handler(number, self._take)
        try:
            yield self
        finally:
            for number in _NUMBERS:
                loop.remove_signal_handler(number)

    def pass_to(self, handler: Callable[[], object]) -> None:
        """Call `handler` for each from now on, and for those in between."""
        self._handler = handler
        for _ in range(self._num_late):
            handler()

    def _take(self) -> None:
        if self._handler is not None:
            self._handler()
        elif not self._starting.cancel():
            self._num_late += 1
