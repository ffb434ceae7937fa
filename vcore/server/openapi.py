"""`/openapi.json`: what FastAPI derives, made truthful where every endpoint differs from what it assumes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from vcore.config import ServerSettings
from vcore.server.middleware.api_keys import OPEN_PATHS
from vcore.version import __version__

__all__ = ["describe"]

_FASTAPI_ERRORS = ("HTTPValidationError", "ValidationError")
_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}
_METHODS = {"get", "post", "put", "delete", "patch"}


def describe(app: FastAPI, settings: ServerSettings) -> dict[str, Any]:
    """The description of `app` as it is served: wrong requests get 400, not 422; a key is needed if one is set."""
    description = get_openapi(
        title="vcore",
        version=__version__,
        summary="An LLM engine behind an OpenAI-compatible API",
        routes=app.routes,
        servers=None,
    )
    schemas = description["components"]["schemas"]
    for name in _FASTAPI_ERRORS:
        schemas.pop(name, None)
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            if method in _METHODS:
                _correct(operation, guarded=settings.guarded and path not in OPEN_PATHS)
    if settings.guarded:
        description["components"]["securitySchemes"] = {"ApiKey": {"type": "http", "scheme": "bearer"}}
    return description


def _correct(operation: dict[str, Any], *, guarded: bool) -> None:
    responses = operation["responses"]
    if responses.pop("422", None) is not None:
        responses.setdefault("400", {"description": "The request is wrong.", "content": _ERROR})
    responses.pop("401", None)
    if guarded:
        operation["security"] = [{"ApiKey": []}]
        responses["401"] = {"description": "The API key is missing or wrong.", "content": _ERROR}
