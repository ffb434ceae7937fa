"""`ApiError`: an answer that is an error, and what each exception of the engine becomes. It knows no framework."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from vcore.errors import EngineDeadError, EngineError, RequestError, RequestTooLargeError
from vcore.server.protocol.errors import ErrorResponse

__all__ = ["ApiError", "aborted", "api_error", "took_too_long"]

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class ApiError(Exception):
    """An error as clients of OpenAI's API expect it."""

    status: int
    """The HTTP status."""
    message: str
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    """The field of the request that is wrong."""
    retry_after: int | None = None
    """Seconds, for the header ``Retry-After``."""

    def __str__(self) -> str:
        return self.message

    def body(self) -> ErrorResponse:
        """The JSON of the answer."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """What the answer's headers have besides."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def api_error(error: BaseException) -> ApiError:
    """What `error` is to a client. What nobody foresaw is logged with its traceback, and told without."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestTooLargeError):
        return ApiError(400, str(error), code="context_length_exceeded", param=error.param)
    if isinstance(error, RequestError):
        return ApiError(400, str(error), param=error.param)
    if isinstance(error, EngineDeadError):
        return ApiError(503, str(error), type="server_error", code="engine_unavailable", retry_after=5)
    if isinstance(error, EngineError):
        return ApiError(500, str(error), type="server_error", code="engine_error")
    if isinstance(error, RecursionError):  # nothing else here is as deep as what a client may send
        return ApiError(400, "the request is nested too deeply")
    logger.error("a request failed in a way that nobody foresaw", exc_info=error)
    what = f"{type(error).__name__} inside the server; its log has the details"
    return ApiError(500, what, type="server_error", code="internal_error")


def aborted() -> ApiError:
    """The end of a request that the engine gave up, though nobody on this side asked for that."""
    return ApiError(503, "the request was aborted", type="server_error", code="aborted", retry_after=1)


def took_too_long(seconds: float) -> ApiError:
    """The end of a request that the server lets run no longer."""
    message = f"the request took longer than {seconds:g} seconds, which is this server's limit"
    return ApiError(504, message, type="server_error", code="request_timeout")
