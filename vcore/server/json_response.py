"""Answers as JSON."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from starlette.responses import Response

from vcore.server.errors import ApiError

__all__ = ["JsonResponse", "encode", "error_response"]

_encode = msgspec.json.Encoder().encode


def encode(payload: Any) -> bytes:  # anything that JSON holds
    """`payload` as JSON in UTF-8. What a client sent may hold lone surrogates; they are escaped."""
    try:
        return _encode(payload)
    except UnicodeEncodeError:
        return json.dumps(payload, separators=(",", ":")).encode("ascii")


class JsonResponse(Response):
    """A dictionary, as it is."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body."""
        return encode(content)


def error_response(error: ApiError) -> JsonResponse:
    """The answer that `error` is."""
    return JsonResponse(error.body(), status_code=error.status, headers=error.headers)
