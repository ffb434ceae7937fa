"""`ApiKeys`: lets those in who have a key."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vcore.server.errors import ApiError
from vcore.server.json_response import error_response

if TYPE_CHECKING:
    from pydantic import SecretStr
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["OPEN_PATHS", "OPEN_PREFIX", "ApiKeys"]

OPEN_PATHS = frozenset({"/", "/health", "/version", "/metrics", "/openapi.json"})
"""What needs no key: the page, which asks for one, and what probes and scrapers read."""
OPEN_PREFIX = "/ui/static/"
"""What the page is made of."""


class ApiKeys:
    """Refuses requests without ``Authorization: Bearer KEY``, before anything of them is read."""

    def __init__(self, app: ASGIApp, keys: Sequence[SecretStr]) -> None:
        """Stand before `app`; any of `keys` will do."""
        self._app = app
        self._keys = [key.get_secret_value().encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        if scope["type"] != "http" or self._is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if self._fits(given):
            await self._app(scope, receive, send)
            return
        what = "the API key is wrong" if given else "an API key is needed: Authorization: Bearer KEY"
        await error_response(ApiError(401, what, code="invalid_api_key"))(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return path in OPEN_PATHS or path.startswith(OPEN_PREFIX)

    def _fits(self, header: bytes) -> bool:
        scheme, _, key = header.partition(b" ")
        # Every key is compared, and each in constant time, so that the time tells nothing.
        fits = [hmac.compare_digest(key.strip(), one) for one in self._keys]
        return scheme.lower() == b"bearer" and any(fits)
