"""``POST /v1/chat/completions``."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from vcore.server.chat_plan import plan_chat
from vcore.server.chat_writer import ChatWriter
from vcore.server.context import Context, new_id
from vcore.server.disconnect import until_disconnect
from vcore.server.field_names import FieldNames
from vcore.server.json_response import JsonResponse
from vcore.server.protocol.chat import ChatCompletion, ChatCompletionRequest
from vcore.server.routes.declarations import GENERATION_ERRORS, streamed
from vcore.server.sse import open_stream

__all__ = ["router"]

router = APIRouter(tags=["generation"])

_PROMPT = ("prompt(?:_token_ids)?", "messages")
_LENGTH = ("max_tokens", "max_completion_tokens")


@router.post(
    "/v1/chat/completions",
    operation_id="createChatCompletion",
    response_class=Response,
    responses=streamed(ChatCompletion, "The assistant's next message.") | GENERATION_ERRORS,
)
async def create_chat_completion(body: ChatCompletionRequest, request: Request, context: Context) -> Response:
    """Go on with a conversation."""
    fields = FieldNames((_PROMPT,) if body.max_completion_tokens is None else (_PROMPT, _LENGTH))
    with fields.applied():
        plan = await plan_chat(context, body)
    fields = fields.of_form(plan.form_field)
    generation = context.generation(new_id("chatcmpl-"), [plan.prompt], plan.params, fields=fields)
    writer = ChatWriter(generation, plan)
    if body.stream:
        return await open_stream(request, writer.stream(body.stream_options))
    return JsonResponse(await until_disconnect(request.receive, writer.whole()))
