"""``POST /v1/chat/completions``."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from vcore.engine.prompts import TokensPrompt
from vcore.server.chat_prompt import render_prompt
from vcore.server.chat_writer import ChatForm, ChatWriter
from vcore.server.context import Context, ServerContext, new_id
from vcore.server.disconnect import until_disconnect
from vcore.server.json_response import JsonResponse
from vcore.server.protocol.chat import ChatCompletion, ChatCompletionRequest
from vcore.server.request_params import chat_params
from vcore.server.routes.declarations import GENERATION_ERRORS, streamed
from vcore.server.sse import open_stream
from vcore.server.tool_calls import parse_tool_choice, parse_tools

__all__ = ["router"]

router = APIRouter(tags=["generation"])


@router.post(
    "/v1/chat/completions",
    operation_id="createChatCompletion",
    response_class=Response,
    responses=streamed(ChatCompletion, "The assistant's next message.") | GENERATION_ERRORS,
)
async def create_chat_completion(body: ChatCompletionRequest, request: Request, context: Context) -> Response:
    """Go on with a conversation."""
    context.models.check(body.model)
    context.admission.check_engine()
    writer = _writer(body, context, await render_prompt(context, body))
    if body.stream:
        return await open_stream(request, writer.stream(body.stream_options))
    return JsonResponse(await until_disconnect(request.receive, writer.whole()))


def _writer(body: ChatCompletionRequest, context: ServerContext, prompt: TokensPrompt) -> ChatWriter:
    text = prompt.get("prompt", "")
    tools = parse_tools([tool.model_dump(exclude_none=True) for tool in body.tools or ()])
    choice = (
        body.tool_choice
        if body.tool_choice is None or isinstance(body.tool_choice, str)
        else body.tool_choice.model_dump()
    )
    tool_choice = parse_tool_choice(choice, tools, parallel=body.parallel_tool_calls)
    chat_format = context.chat_format
    params = chat_format.sampling_params(chat_params(body, context.settings), text, tools, tool_choice)
    form = ChatForm(
        model=context.models.check(body.model),
        new_parser=lambda: chat_format.new_parser(text, tools, tool_choice),
        token_bytes=lambda token_id: context.engine.get_tokenizer().id_to_bytes(token_id),
        num_top_logprobs=params.logprobs,
        tells_reasoning=body.include_reasoning is not False,
        single_call=tool_choice.single,
    )
    return ChatWriter(context.generation(new_id("chatcmpl-"), [prompt], params), form)
