"""Every field with values that are wrong: what an error is about is a field of the request that the client sent."""

from __future__ import annotations

import re
from typing import Any

import pytest

from vcore.engine.pooling import ModelPooling
from vcore.server.protocol.chat import ChatCompletionRequest
from vcore.server.protocol.common import RequestModel
from vcore.server.protocol.completions import CompletionRequest
from vcore.server.protocol.embeddings import EmbeddingsRequest
from vcore.server.protocol.responses import ResponsesRequest
from vcore.server.protocol.tokenize import DetokenizeRequest, TokenizeChatRequest, TokenizeTextRequest

MESSAGES = [{"role": "user", "content": "hi"}]
ENDPOINTS: dict[str, tuple[str, dict[str, Any], tuple[type[RequestModel], ...]]] = {
    "completions": ("/v1/completions", {"prompt": "hi"}, (CompletionRequest,)),
    "chat": ("/v1/chat/completions", {"messages": MESSAGES}, (ChatCompletionRequest,)),
    "responses": ("/v1/responses", {"input": "hi"}, (ResponsesRequest,)),
    "embeddings": ("/v1/embeddings", {"input": "hi"}, (EmbeddingsRequest,)),
    "tokenize text": ("/tokenize", {"prompt": "hi"}, (TokenizeTextRequest, TokenizeChatRequest)),
    "tokenize chat": ("/tokenize", {"messages": MESSAGES}, (TokenizeTextRequest, TokenizeChatRequest)),
    "detokenize": ("/detokenize", {"tokens": [104]}, (DetokenizeRequest,)),
}
WRONG: tuple[Any, ...] = (
    -1.5,
    999,
    True,
    "zz",
    "x" * 300,
    [],
    [999],
    ["", " "],
    [[{}]],
    [{"type": "function", "function": {"name": "f"}}],
    [{"type": "function", "name": "f", "parameters": 5}],
    [{"role": "user", "content": None}],
    {},
    {"type": "json_schema", "json_schema": {"schema": 5}},
    {"type": "json_schema", "schema": 5},
    {"format": {"type": "regex", "regex": 5}, "effort": 5},
    {"-1": 5, "regex": "a"},
)


@pytest.mark.parametrize("name", ENDPOINTS)
def test_the_field_is_one_of_the_request(make_server: Any, scripted: Any, name: str) -> None:
    path, whole, models = ENDPOINTS[name]
    server = make_server(scripted(pooling=ModelPooling(mode="last", size=4)))
    fields = {field for model in models for field in model.model_fields}
    num_wrong = 0
    for field in sorted(fields):
        for value in WRONG:
            answer = server.post(path, {**whole, field: value})
            if answer.status_code == 200:
                continue
            error = answer.json()["error"]
            asked = f"{path} {field}={value!r:.60}: {error}"
            assert answer.status_code == (404 if error["code"] == "model_not_found" else 400), asked
            assert error["param"] is not None, asked
            root = re.split(r"[.\[]", error["param"])[0]
            assert root in fields, asked
            assert not re.search(r"prompt_token_ids|Params\b|structured_output\b", error["message"]), asked
            num_wrong += 1
    assert num_wrong > 2 * len(fields)
