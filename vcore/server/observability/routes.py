"""``/metrics`` and ``/trace``."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Response

from vcore.server.errors import ApiError

if TYPE_CHECKING:
    from vcore.server.observability.observability import Observability

__all__ = ["MAX_TRACE_SECONDS", "make_router"]

MAX_TRACE_SECONDS = 86_400.0
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_METRICS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Prometheus' text.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}
_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}
_TRACE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Chrome's trace event format.",
        "content": {"application/json": {"schema": {"type": "object", "required": ["traceEvents"]}}},
    },
    403: {"description": "It is off.", "content": _ERROR},
}


def make_router(observability: Observability, *, trace_allowed: bool) -> APIRouter:
    """The endpoints; ``/trace`` answers only if it is allowed, since it names requests."""
    router = APIRouter(tags=["observability"])

    @router.get("/metrics", operation_id="metrics", response_class=Response, responses=_METRICS)
    async def metrics() -> Response:
        """Counts of everything, for Prometheus."""
        return Response(await observability.exposition(), headers={"Content-Type": _METRICS_TYPE})

    @router.get("/trace", operation_id="trace", response_class=Response, responses=_TRACE)
    async def trace(seconds: Annotated[float, Query(gt=0.0, le=MAX_TRACE_SECONDS)] = 10.0) -> Response:
        """The steps and requests of the last seconds; the file opens in ui.perfetto.dev."""
        if not trace_allowed:
            message = "this is off: start the server with --enable-trace, or with an API key"
            raise ApiError(403, message, type="permission_error", code="not_enabled")
        window = observability.timeline.last(seconds)
        # In a thread, because thousands of steps take a while to write out.
        body = await asyncio.to_thread(lambda: json.dumps(observability.trace(window)))
        headers = {"Content-Disposition": 'attachment; filename="vcore-trace.json"'}
        return Response(body, media_type="application/json", headers=headers)

    return router
