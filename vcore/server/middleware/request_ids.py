"""`RequestIds`: a name for every exchange, and the last resort for what nobody caught."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

from vcore.server.disconnect import ClientGoneError
from vcore.server.errors import api_error
from vcore.server.json_response import error_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HEADER", "RequestIds"]

HEADER = "X-Request-Id"
_FIT = re.compile(rb"[A-Za-z0-9._:@/+=-]{1,128}")


class RequestIds:
    """Answers with the client's own ``X-Request-Id`` if it sent a decent one, or with a new one.

    The id is in ``request.state.request_id``, too.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Stand before `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = HEADER.lower().encode()
        given = next((value for key, value in scope["headers"] if key == name), b"")
        request_id = given if _FIT.fullmatch(given) else uuid.uuid4().hex.encode()
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        started = False

        async def named_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], (name, request_id)]
            await send(message)

        try:
            await self._app(scope, receive, named_send)
        except ClientGoneError:
            return
        except Exception as error:
            if started:
                raise
            await error_response(api_error(error))(scope, receive, named_send)
