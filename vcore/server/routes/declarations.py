"""What endpoints declare of their answers, for ``/openapi.json``."""

from __future__ import annotations

from typing import Any

from vcore.server.protocol.errors import ErrorResponse

__all__ = ["BODY_ERRORS", "GENERATION_ERRORS", "Declared", "error_responses", "streamed"]

Declared = dict[int | str, dict[str, Any]]
"""Answers by status."""

_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {"type": "string", "description": "JSON; `[DONE]` is the last one."},
        "event": {"type": "string", "description": "The event's type, where events have one."},
    },
}
_MEANINGS: dict[int, str] = {
    400: "The request is wrong; `param` names the field.",
    401: "The API key is missing or wrong.",
    403: "The operator has not enabled it.",
    404: "There is no such model.",
    408: "The body took too long.",
    409: "Not in this state.",
    413: "The body is too large.",
    429: "The queue is full.",
    500: "The server failed; it goes on.",
    503: "The engine does not serve now.",
    504: "The request took longer than the server allows.",
}


def error_responses(*statuses: int) -> Declared:
    """Errors of one shape."""
    declared: Declared = {}
    for status in statuses:
        declared[status] = {"model": ErrorResponse, "description": _MEANINGS[status]}
        if status in (429, 503):
            declared[status]["headers"] = _RETRY_AFTER
    return declared


BODY_ERRORS = error_responses(400, 401, 408, 413)
"""Of every endpoint that takes a body."""
GENERATION_ERRORS = BODY_ERRORS | error_responses(404, 429, 500, 503, 504)
"""Of every endpoint that generates."""


def streamed(model: Any, what: str) -> Declared:
    """An answer in JSON, or as a stream of events if the client asks for one."""
    events = {"text/event-stream": {"itemSchema": _EVENT}}
    return {200: {"model": model, "description": what, "content": events}}
