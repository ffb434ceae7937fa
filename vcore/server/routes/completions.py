"""``POST /v1/completions``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from fastapi import APIRouter, Request, Response

from vcore.engine.prompts import Prompt
from vcore.server.completion_writer import CompletionForm, CompletionWriter
from vcore.server.context import Context, new_id
from vcore.server.disconnect import until_disconnect
from vcore.server.field_names import FieldNames
from vcore.server.json_response import JsonResponse
from vcore.server.protocol.completions import Completion, CompletionRequest
from vcore.server.request_params import completion_params
from vcore.server.routes.declarations import GENERATION_ERRORS, streamed
from vcore.server.sse import open_stream

if TYPE_CHECKING:
    from vcore.server.protocol.completions import PromptForms

__all__ = ["router"]

router = APIRouter(tags=["generation"])

_FIELDS = FieldNames((("prompt_token_ids", "prompt"), ("prompt_logprobs", "logprobs")))


@router.post(
    "/v1/completions",
    operation_id="createCompletion",
    response_class=Response,
    responses=streamed(Completion, "The text that follows.") | GENERATION_ERRORS,
)
async def create_completion(body: CompletionRequest, request: Request, context: Context) -> Response:
    """Go on with one text or several."""
    form = CompletionForm(
        model=context.models.check(body.model),
        echo=bool(body.echo),
        logprobs=body.logprobs,
        discard_output=body.max_tokens == 0,
    )
    fields = _FIELDS.of_form(body.form_field)
    with fields.applied():
        params = completion_params(body, context.settings)
    generation = context.generation(new_id("cmpl-"), _split(body.prompt), params, fields=fields)
    writer = CompletionWriter(context.engine, generation, form)
    if body.stream:
        return await open_stream(request, writer.stream(body.stream_options))
    return JsonResponse(await until_disconnect(request.receive, writer.whole()))


def _split(prompt: PromptForms) -> list[Prompt]:
    if isinstance(prompt, str) or isinstance(prompt[0], int):
        return [cast(Prompt, prompt)]
    return cast("list[Prompt]", prompt)
