"""What becomes of exceptions that endpoints raise: every error has OpenAI's shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from vcore.errors import VcoreError
from vcore.server.disconnect import ClientGoneError
from vcore.server.errors import ApiError, api_error
from vcore.server.json_response import error_response
from vcore.server.validation_errors import validation_error

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

__all__ = ["install_error_handlers"]

_CLIENT_GONE = 499
"""Nobody reads it, but logs and metrics do."""


def install_error_handlers(app: FastAPI) -> None:
    """Let `app` answer with errors of one shape."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(VcoreError, _known)
    app.add_exception_handler(ApiError, _known)
    app.add_exception_handler(ClientGoneError, _gone)


async def _known(request: Request, error: Exception) -> Response:
    return error_response(api_error(error))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(validation_error(error.errors(), error.body))


async def _http(request: Request, error: Exception) -> Response:
    """What the framework refuses: unknown paths, wrong methods, bodies that it cannot parse."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, ValueError | RecursionError):
        return error_response(_unreadable(error.__cause__))
    message = {
        404: f"there is no {request.method} {request.url.path[:200]}; /openapi.json lists what there is",
        405: f"{request.url.path[:200]} does not take {request.method}",
    }.get(error.status_code, str(error.detail))
    response = error_response(ApiError(error.status_code, message, code={404: "not_found"}.get(error.status_code)))
    response.headers.update(error.headers or {})
    return response


def _unreadable(cause: ValueError | RecursionError) -> ApiError:
    """A body that no parser of JSON gets through, though it may not break its grammar."""
    reason = "a number has too many digits"
    if isinstance(cause, RecursionError):
        reason = "it is nested too deeply"
    elif isinstance(cause, UnicodeDecodeError):
        reason = f"it is not in UTF-8: {cause.reason} at byte {cause.start}"
    return ApiError(400, f"the body cannot be read as JSON: {reason}", code="invalid_json")


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_GONE)
