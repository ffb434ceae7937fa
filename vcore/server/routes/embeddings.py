"""``POST /v1/embeddings``."""

from __future__ import annotations

from fastapi import APIRouter, Response

from vcore.errors import RequestError
from vcore.server.context import Context
from vcore.server.protocol.embeddings import EmbeddingsRequest
from vcore.server.routes.declarations import BODY_ERRORS, error_responses

__all__ = ["router"]

router = APIRouter(tags=["generation"])


@router.post(
    "/v1/embeddings",
    operation_id="createEmbedding",
    response_class=Response,
    responses=BODY_ERRORS | error_responses(404),
)
async def create_embedding(body: EmbeddingsRequest, context: Context) -> Response:
    """Refused: no model plugin pools hidden states yet."""
    name = context.models.check(body.model)
    raise RequestError(
        f"the model {name!r} generates text and has no embeddings: no model plugin of this version pools hidden states",
        param="model",
    )
