"""`EventStream`: an answer of server-sent events, as browsers and OpenAI's clients read them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from vcore.server.disconnect import ClientGoneError, until_disconnect
from vcore.server.errors import ApiError, api_error
from vcore.server.json_response import encode

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

__all__ = ["DONE", "EventStream", "event", "named_event", "open_stream"]

ErrorEvents = Callable[[ApiError], bytes]
"""The events that tell of an error in mid-stream, and end it."""

DONE = b"data: [DONE]\n\n"
"""What ends a stream."""


def event(payload: Any) -> bytes:  # anything that JSON holds
    """An event that carries `payload` as JSON, which has no line breaks."""
    return b"data: %b\n\n" % encode(payload)


def named_event(payload: dict[str, Any]) -> bytes:
    """The same with the name that `payload` has as its ``type``."""
    return b"event: %b\n%b" % (payload["type"].encode(), event(payload))


def error_events(error: ApiError) -> bytes:
    """An event with the error's JSON, and the end."""
    return event(error.body()) + DONE


async def open_stream(
    request: Request, events: AsyncGenerator[bytes, None], errors: ErrorEvents = error_events
) -> EventStream:
    """Answer with `events` once the first of them is there, so that what is wrong by then has a status of its own.

    Raises:
        ClientGoneError: the client left first; `events` is closed.
        Exception: what `events` raises before it yields.
    """
    try:
        first = await until_disconnect(request.receive, anext(events))
    except BaseException:
        await events.aclose()
        raise
    return EventStream(first, events, errors)


class EventStream(Response):
    """Sends events as they come, and closes their generator at once when the client is gone."""

    media_type = "text/event-stream"

    def __init__(self, first: bytes, events: AsyncGenerator[bytes, None], errors: ErrorEvents) -> None:
        """Stream.

        Args:
            first: already taken out of `events`.
            events: encoded events; more than one may come at a time.
            errors: what is sent if `events` raises.
        """
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._first = first
        self._events = events
        self._errors = errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything."""
        try:
            async with aclosing(self._events):
                await until_disconnect(receive, self._send_all(send))
        except ClientGoneError:
            return

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self._first, "more_body": True})
        try:
            async for data in self._events:
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except Exception as error:
            await send({"type": "http.response.body", "body": self._errors(api_error(error)), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
