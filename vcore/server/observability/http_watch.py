"""`HttpWatch`: an ASGI middleware that tells of every HTTP exchange once it is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vcore.server.observability.request_notes import Exchanging, RequestNotes, exchanging, route_path

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["CLIENT_GONE", "Exchange", "HttpWatch"]

CLIENT_GONE = 499
"""The status of an exchange whose client left before it was given one."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer."""

    method: str
    path: str
    """The route that served, or ``unmatched``."""
    status: int
    seconds: float
    """Until the last byte was handed over."""
    request_id: str | None
    """The answer's ``X-Request-Id``."""


class HttpWatch:
    """Passes everything through."""

    def __init__(
        self,
        app: ASGIApp,
        begin: Callable[[], None],
        end: Sequence[Callable[[Exchange], None]],
        notes: RequestNotes | None = None,
    ) -> None:
        """Watch `app`.

        Args:
            app: the rest of the application.
            begin: called when a request comes.
            end: called with each exchange that is over.
            notes: where `note_request` notes what the engine is asked for; None if nobody reads it.
        """
        self._app = app
        self._begin = begin
        self._end = end
        self._notes = notes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status: int | None = None
        request_id: str | None = None

        async def watched_send(message: Message) -> None:
            nonlocal status, request_id
            if message["type"] == "http.response.start":
                status = message["status"]
                request_id = _header(message.get("headers", ()), b"x-request-id")
            await send(message)

        current = None if self._notes is None else Exchanging(scope, self._notes)
        token = exchanging.set(current)
        self._begin()
        start = time.monotonic()
        try:
            await self._app(scope, receive, watched_send)
        except Exception:
            status = status or 500
            raise
        finally:
            exchanging.reset(token)
            seconds = time.monotonic() - start
            exchange = Exchange(scope["method"], route_path(scope), status or CLIENT_GONE, seconds, request_id)
            for told in self._end:
                told(exchange)
            if current is not None:
                current.over()


def _header(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in headers if key.lower() == name), None)
