"""``/tokenize`` and ``/detokenize``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response

from vcore.engine.param_checks import check_ids
from vcore.server.chat_prompt import render_prompt
from vcore.server.context import Context
from vcore.server.json_response import JsonResponse
from vcore.server.protocol.tokenize import (
    Detokenized,
    DetokenizeRequest,
    TokenizeChatRequest,
    Tokenized,
    TokenizeTextRequest,
)
from vcore.server.routes.declarations import BODY_ERRORS, error_responses

if TYPE_CHECKING:
    from vcore.tokenizer import Tokenizer

__all__ = ["router"]

router = APIRouter(tags=["tokens"], responses=BODY_ERRORS | error_responses(404))


@router.post("/tokenize", operation_id="tokenize", response_model=Tokenized)
async def tokenize(body: TokenizeChatRequest | TokenizeTextRequest, context: Context) -> Response:
    """The token ids of a text, or of the prompt that the chat template makes of a conversation."""
    context.models.check(body.model)
    if isinstance(body, TokenizeChatRequest):
        tokens = list((await render_prompt(context, body))["prompt_token_ids"])
    else:
        add = body.add_special_tokens is not False
        tokens = await asyncio.to_thread(context.engine.encode, body.prompt, add_special_tokens=add)
    answer: Tokenized = {"count": len(tokens), "max_model_len": context.engine.max_model_len, "tokens": tokens}
    if body.return_token_strs:
        tokenizer = context.engine.get_tokenizer()
        answer["token_strs"] = await asyncio.to_thread(_names, tokenizer, tokens)
    return JsonResponse(answer)


def _names(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    return [tokenizer.id_to_token(token) or "" for token in tokens]


@router.post("/detokenize", operation_id="detokenize", response_model=Detokenized)
async def detokenize(body: DetokenizeRequest, context: Context) -> Response:
    """The text of token ids."""
    context.models.check(body.model)
    check_ids(body.tokens, context.engine.vocab_size, "tokens")
    skip = bool(body.skip_special_tokens)
    text = await asyncio.to_thread(context.engine.decode, body.tokens, skip_special_tokens=skip)
    answer: Detokenized = {"prompt": text}
    return JsonResponse(answer)
