"""``POST /v1/embeddings``."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from vcore.engine.prompts import split_prompts
from vcore.outputs import EmbeddingOutput
from vcore.pooling_params import PoolingParams
from vcore.server.context import Context, new_id
from vcore.server.disconnect import until_disconnect
from vcore.server.json_response import JsonResponse, encode
from vcore.server.protocol.embeddings import Embedding, Embeddings, EmbeddingsRequest
from vcore.server.routes.declarations import GENERATION_ERRORS

__all__ = ["router"]

router = APIRouter(tags=["embeddings"])


@router.post("/v1/embeddings", operation_id="createEmbedding", response_model=Embeddings, responses=GENERATION_ERRORS)
async def create_embedding(body: EmbeddingsRequest, request: Request, context: Context) -> Response:
    """A vector for each text, by the model's pooling; refused if the model has none."""
    model = context.models.check(body.model)
    params = PoolingParams(
        normalize=body.normalize,
        dimensions=body.dimensions,
        priority=body.priority or 0,
        tenant=body.tenant,
        cache_salt=body.cache_salt,
    )
    prompts, _ = split_prompts(body.input)
    run = context.embedding(new_id("embd-"), prompts, params)
    outputs = await until_disconnect(request.receive, run.results())
    num_tokens = sum(output.num_prompt_tokens for output in outputs)
    data = await _data(outputs, as_text=body.encoding_format == "base64")
    usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    return JsonResponse({"object": "list", "data": data, "model": model, "usage": usage})


async def _data(outputs: Sequence[EmbeddingOutput], *, as_text: bool) -> list[msgspec.Raw]:
    """The vectors as JSON; others get their turn in between, as a vector of thousands of numbers takes a while."""
    data = []
    for index, output in enumerate(outputs):
        data.append(msgspec.Raw(encode(_item(index, output, as_text=as_text))))
        await asyncio.sleep(0)
    return data


def _item(index: int, output: EmbeddingOutput, *, as_text: bool) -> Embedding:
    vector: Any = output.embedding  # the run answers with no other
    value = base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii") if as_text else vector.tolist()
    return {"object": "embedding", "index": index, "embedding": value}
