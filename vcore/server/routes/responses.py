"""``POST /v1/responses``."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from vcore.server.chat_plan import plan_chat
from vcore.server.context import Context, new_id
from vcore.server.disconnect import until_disconnect
from vcore.server.field_names import FieldNames
from vcore.server.json_response import JsonResponse
from vcore.server.protocol.responses import ResponseObject, ResponsesRequest
from vcore.server.responses_input import as_chat_request
from vcore.server.responses_writer import ResponsesWriter
from vcore.server.routes.declarations import GENERATION_ERRORS, streamed
from vcore.server.sse import open_stream

__all__ = ["router"]

router = APIRouter(tags=["generation"])

_OF_CHAT = FieldNames(
    (
        ("messages.*", "input"),
        ("max_tokens|max_completion_tokens", "max_output_tokens"),
        ("reasoning_effort", "reasoning.effort"),
        (r"(tools\[\d+\])\.function", r"\1"),
        (r"tool_choice\.function", "tool_choice"),
    )
)
"""Of the chat request that a request amounts to."""
_OF_ENGINE = FieldNames((("prompt(?:_token_ids)?", "input"), *_OF_CHAT.rules))
_FORM = FieldNames(((r"response_format(?:\.json_schema)?", "text.format"),))
"""Of requests that say it there; `response_format` itself is taken, too."""


@router.post(
    "/v1/responses",
    operation_id="createResponse",
    response_class=Response,
    responses=streamed(ResponseObject, "The response.") | GENERATION_ERRORS,
)
async def create_response(body: ResponsesRequest, request: Request, context: Context) -> Response:
    """Answer a text or a conversation; nothing is stored."""
    says_form = body.text is not None and body.text.format is not None
    with (_FORM if says_form else FieldNames()).applied(), _OF_CHAT.applied():
        plan = await plan_chat(context, as_chat_request(body))
    fields = _OF_ENGINE.of_form("text.format" if says_form else plan.form_field)
    generation = context.generation(new_id("resp_"), [plan.prompt], plan.params, fields=fields)
    writer = ResponsesWriter(generation, plan, body)
    if body.stream:
        return await open_stream(request, writer.stream(), writer.failure)
    return JsonResponse(await until_disconnect(request.receive, writer.whole()))
