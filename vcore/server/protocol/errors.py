"""The shape of every error."""

from __future__ import annotations

from typing_extensions import TypedDict

__all__ = ["ErrorBody", "ErrorResponse"]


class ErrorBody(TypedDict):
    """What is wrong, for people and for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(TypedDict):
    """The answer to a request that failed."""

    error: ErrorBody
