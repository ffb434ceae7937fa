"""`HttpConnection`: uvicorn's HTTP/1.1 connection with limits to clients that do not read."""

from __future__ import annotations

import asyncio

from vcore.server.checked_connection import CheckedConnection

__all__ = ["STALL_TIMEOUT_S", "HttpConnection"]

STALL_TIMEOUT_S = 60.0
"""Seconds after which a client that takes no byte of what waits for it is given up."""


class HttpConnection(CheckedConnection):
    """Gives up clients that have stopped to read, which uvicorn waits for without end.

    What is written beyond the transport's limit pauses the writing. If nothing of that is taken for a while, the
    connection is aborted: its request ends as if the client had left, and makes room for others. Whoever reads
    slowly, but reads, is waited for.
    """

    _stall_timer: asyncio.TimerHandle | None = None
    _num_unsent = 0
    """When the timer was started."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is sent any more."""
        self._stop_stall_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read as fast as is written."""
        super().pause_writing()
        self._start_stall_timer()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._stop_stall_timer()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """There was no other request. To close is to wait until all is read, for which there was time enough."""
        if self._stall_timer is None and self.transport.get_write_buffer_size():
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def _start_stall_timer(self) -> None:
        self._stop_stall_timer()
        self._num_unsent = self.transport.get_write_buffer_size()
        self._stall_timer = self.loop.call_later(STALL_TIMEOUT_S, self._check_progress)

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _check_progress(self) -> None:
        if self.transport.get_write_buffer_size() < self._num_unsent:
            self._start_stall_timer()
        else:
            self._stall_timer = None
            self.transport.abort()
