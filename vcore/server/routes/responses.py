"""``POST /v1/responses``."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from vcore.server.chat_plan import plan_chat
from vcore.server.context import Context, new_id
from vcore.server.disconnect import until_disconnect
from vcore.server.json_response import JsonResponse
from vcore.server.protocol.responses import ResponseObject, ResponsesRequest
from vcore.server.responses_input import as_chat_request
from vcore.server.responses_writer import ResponsesWriter
from vcore.server.routes.declarations import GENERATION_ERRORS, streamed
from vcore.server.sse import open_stream

__all__ = ["router"]

router = APIRouter(tags=["generation"])


@router.post(
    "/v1/responses",
    operation_id="createResponse",
    response_class=Response,
    responses=streamed(ResponseObject, "The response.") | GENERATION_ERRORS,
)
async def create_response(body: ResponsesRequest, request: Request, context: Context) -> Response:
    """Answer a text or a conversation; nothing is stored."""
    plan = await plan_chat(context, as_chat_request(body))
    generation = context.generation(new_id("resp_"), [plan.prompt], plan.params, form_field=plan.form_field)
    writer = ResponsesWriter(generation, plan, body)
    if body.stream:
        return await open_stream(request, writer.stream(), writer.failure)
    return JsonResponse(await until_disconnect(request.receive, writer.whole()))
