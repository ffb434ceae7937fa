"""`Ending`: what signals, and the end of the engine, do to a server.

first signal    nothing more is let in, listening ends, open requests go on for `drain_s` seconds
after that      what is still open ends with an error that says so
second signal   the same at once
engine dead     it was given up: open requests have their errors, and once these are sent the process fails
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from vcore.errors import EngineDeadError
from vcore.server.errors import ApiError
from vcore.server.http_server import GRACE_S, HttpServer

if TYPE_CHECKING:
    from vcore.engine.records import EngineStatus, RequestRecord, StepRecord
    from vcore.server.admission import Admission

__all__ = ["Ending"]


class Ending:
    """Ends a server, gently or at once. It is an `EngineListener`."""

    def __init__(self, server: HttpServer, admission: Admission, drain_s: float) -> None:
        """Let `server` go on until something ends it.

        Args:
            server: that is to end.
            admission: knows the open requests.
            drain_s: seconds that these have to finish.
        """
        self._server = server
        self._admission = admission
        self._drain_s = drain_s
        self._num_signals = 0
        self._dead: str | None = None

    def on_step(self, record: StepRecord) -> None:
        """All is well."""

    def on_finished(self, record: RequestRecord) -> None:
        """All is well."""

    def on_engine(self, status: EngineStatus) -> None:
        """End if the engine was given up; nothing is let in by then, and what was open is told why."""
        if status.state == "dead" and self._dead is None:
            self._dead = status.reason or "the cause is not known"
            self._server.should_exit = True

    def check_engine(self) -> None:
        """Raise if that is why it ended.

        Raises:
            EngineDeadError: the message has the cause in one line, for logs that are read by the line.
        """
        if self._dead is not None:
            cause = " ".join(line.strip() for line in self._dead.splitlines())
            raise EngineDeadError(f"the engine is dead and is not started again: {cause}")

    def on_signal(self) -> None:
        """End gently, or, asked again, at once."""
        self._num_signals += 1
        if self._num_signals == 1:
            self._admission.drain()
            self._server.should_exit = True
            asyncio.get_running_loop().call_later(self._drain_s, self._stop_requests)
        else:
            self._server.force_exit = True
            self._server.drop_connections()

    def _stop_requests(self) -> None:
        message = f"the server is shutting down, and the request was not done within {self._drain_s:g} seconds"
        self._admission.stop_all(
            ApiError(503, message, type="server_error", code="shutting_down", retry_after=max(1, round(GRACE_S)))
        )
