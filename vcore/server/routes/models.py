"""``/v1/models``, ``/health`` and ``/version``."""

from __future__ import annotations

from typing import Any, cast

from fastapi import APIRouter, Response

from vcore.server.context import Context
from vcore.server.json_response import JsonResponse
from vcore.server.protocol.models import Health, ModelCard, ModelList, Version
from vcore.server.routes.declarations import error_responses
from vcore.version import __version__

__all__ = ["router"]

router = APIRouter()

_NOT_READY: dict[int | str, dict[str, Any]] = {503: {"model": Health, "description": "Requests are not served now."}}


@router.get(
    "/v1/models", tags=["models"], operation_id="listModels", response_model=ModelList, responses=error_responses(401)
)
async def list_models(context: Context) -> Response:
    """The names of the model that is served."""
    return JsonResponse(context.models.cards())


@router.get(
    "/v1/models/{model:path}",
    tags=["models"],
    operation_id="retrieveModel",
    response_model=ModelCard,
    responses=error_responses(401, 404),
)
async def retrieve_model(model: str, context: Context) -> Response:
    """One name of the model."""
    return JsonResponse(context.models.card(model))


@router.get("/health", tags=["server"], operation_id="health", response_model=Health, responses=_NOT_READY)
async def health(context: Context) -> Response:
    """Whether requests are served: 200, or 503 with the reason."""
    status = context.engine.health()
    state, reason = status.state, status.reason
    if context.admission.draining:
        state, reason = "draining", "the server is shutting down"
    answer: Health = {
        "status": cast(Any, state),
        "reason": reason,
        "restarts": status.restarts,
        "faults": list(status.faults),
        "failed_steps": status.failed_steps,
    }
    return JsonResponse(answer, status_code=200 if state == "ready" else 503)


@router.get("/version", tags=["server"], operation_id="version", response_model=Version)
async def version() -> Response:
    """The server's version."""
    answer: Version = {"version": __version__}
    return JsonResponse(answer)
