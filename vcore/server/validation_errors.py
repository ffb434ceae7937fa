"""What pydantic finds wrong with a request, as one `ApiError` that names the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vcore.server.errors import ApiError

__all__ = ["validation_error"]

_MAX_SHOWN = 80


def validation_error(errors: Sequence[Mapping[str, Any]], body: object) -> ApiError:
    """The most telling of `errors`: the one that reached deepest into the request, the first if there are several.

    Args:
        errors: of FastAPI: ``loc`` begins with where the value stood (``body``, ``query``).
        body: what was sent, parsed.
    """
    if errors[0]["type"] == "json_invalid":
        reason = errors[0].get("ctx", {}).get("error", errors[0]["msg"])
        return ApiError(400, f"the body is no JSON: {reason} at character {errors[0]['loc'][-1]}", code="invalid_json")
    if isinstance(body, bytes):
        return ApiError(400, "the body must be sent as JSON, with Content-Type: application/json")
    if body is None and errors[0]["loc"] == ("body",):
        return ApiError(400, "the request has no body; a JSON object is needed")
    found = [(_path(error, body), error) for error in errors]
    path, error = max(found, key=_depth)  # max keeps the first
    message = str(error["msg"]).removeprefix("Value error, ")
    param = _dotted(path)
    got = "" if error["type"] == "missing" or not path else f", got {_shown(error.get('input'))}"
    return ApiError(400, f"{param or 'the body'}: {message}{got}", param=param or None)


def _depth(found: tuple[list[str | int], Mapping[str, Any]]) -> float:
    """How far an error reached into what was sent; what is not there was not sent, what has only the
    wrong length nearly fits."""
    path, error = found
    return len(path) - int(error["type"] == "missing") + 0.5 * int(error["type"] in ("too_long", "too_short"))


def _path(error: Mapping[str, Any], body: object) -> list[str | int]:
    """Where in `body` the error is. Pydantic's locations name members of unions, too, which no client knows."""
    path: list[str | int] = []
    here = body
    location = error["loc"]
    if location[0] != "body":
        return list(location[1:])
    for position, part in enumerate(location[1:], start=1):
        if _has(here, part):
            here = here[part]  # type: ignore[index]  # it has been looked up
        elif not (error["type"] == "missing" and position == len(location) - 1):
            continue
        path.append(part)
    return path


def _has(value: object, part: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, Mapping) and part in value


def _dotted(path: Sequence[str | int]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
