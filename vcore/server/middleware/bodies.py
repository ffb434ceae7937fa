"""`Bodies`: reads a request's body, within its limits of size and time, before anything is done with it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from vcore.server.disconnect import ClientGoneError
from vcore.server.errors import ApiError
from vcore.server.json_response import error_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Bodies"]

_PATIENCE_S, _PATIENCE_BYTES = 5.0, 1 << 30
"""How much of a body that is refused is read."""
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})


class Bodies:
    """Refuses bodies that are too large (413) or too slow (408)."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout_s: float) -> None:
        """Stand before `app`."""
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        if scope["type"] != "http" or scope["method"] in _WITHOUT_BODY:
            await self._app(scope, receive, send)
            return
        try:
            self._check_declared(scope)
            async with asyncio.timeout(self._timeout_s):
                body = await self._read(receive)
        except ApiError as error:
            if not any(name == b"expect" for name, _ in scope["headers"]):  # that one waits to be asked
                await _discard(receive)
            await _refuse(error, scope, receive, send)
            return
        except TimeoutError:
            slow = ApiError(408, f"the body took longer than {self._timeout_s:g} seconds", code="body_timeout")
            await _refuse(slow, scope, receive, send)
            return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    def _check_declared(self, scope: Scope) -> None:
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if declared.isdigit() and int(declared) > self._max_bytes:
            raise self._too_large(f"{int(declared)} bytes")

    async def _read(self, receive: Receive) -> bytes:
        pieces, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            piece = message.get("body", b"")
            size += len(piece)
            if size > self._max_bytes:
                raise self._too_large("more")
            pieces.append(piece)
            more = message.get("more_body", False)
        return b"".join(pieces)

    def _too_large(self, got: str) -> ApiError:
        message = f"the body has {got}; this server takes at most {self._max_bytes} bytes"
        return ApiError(413, message, code="request_too_large")


async def _discard(receive: Receive) -> None:
    """Read on for a while, and keep nothing: most clients send all before they look for an answer, and would not get it
    if the connection were closed under what they send."""
    size, more = 0, True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            while more and size < _PATIENCE_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                more = message.get("more_body", False)


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer, and close: what is left of the body is not read."""
    response = error_response(error)
    response.headers["Connection"] = "close"
    await response(scope, receive, send)
