"""``/v1/responses``: items in, items out, and the events of a stream."""

from __future__ import annotations

import json
from typing import Any

import pytest

RESPONSES = "/v1/responses"
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
PARSERS = {"chat.tool_parser": "hermes", "chat.reasoning_parser": "qwen3"}
ANSWER = '<think>hmm</think>Well. <tool_call>{"name": "weather", "arguments": {"city": "Bern"}}</tool_call>'


def named_events(text: str) -> list[dict[str, Any]]:
    found = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        payload = json.loads(data.removeprefix("data: "))
        assert name == f"event: {payload['type']}"
        assert payload["sequence_number"] == len(found)
        found.append(payload)
    return found


def plain(value: Any) -> Any:
    """Without what differs between two answers."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items() if name not in ("id", "call_id", "created_at")}
    return [plain(one) for one in value] if isinstance(value, list) else value


@pytest.fixture
def thinker(make_server: Any, scripted: Any) -> Any:
    return make_server(scripted(script=lambda request: ANSWER, overrides=PARSERS, max_model_len=1024))


@pytest.mark.parametrize(
    "extra",
    [{}, {"tools": [WEATHER]}, {"max_output_tokens": 9}, {"top_logprobs": 1}, {"max_output_tokens": 3}],
)
def test_a_stream_ends_with_what_the_whole_answer_is(thinker: Any, extra: dict[str, Any]) -> None:
    whole = thinker.post(RESPONSES, {"input": "hi", **extra}).json()
    response = thinker.post(RESPONSES, {"input": "hi", "stream": True, **extra})
    first, second, *_, last = found = named_events(response.text)
    assert [first["type"], second["type"]] == ["response.created", "response.in_progress"]
    assert first["response"]["output"] == []
    assert last["type"] == f"response.{whole['status']}"
    assert plain(last["response"]) == plain(whole)
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert done == last["response"]["output"]
    for index, item in enumerate(done):
        pieces = [e["delta"] for e in found if e.get("output_index") == index and e["type"].endswith(".delta")]
        text = item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
        assert "".join(pieces) == text


def test_reasoning_text_and_calls_are_items(thinker: Any) -> None:
    answer = thinker.post(RESPONSES, {"input": "hi", "tools": [WEATHER]}).json()
    reasoning, message, call = answer["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "hmm"}]
    assert message["content"][0]["text"].strip() == "Well."
    assert (call["name"], json.loads(call["arguments"])) == ("weather", {"city": "Bern"})
    assert answer["status"] == "completed"
    assert 0 < answer["usage"]["output_tokens_details"]["reasoning_tokens"] < answer["usage"]["output_tokens"]


def test_a_cut_answer_is_incomplete(thinker: Any) -> None:
    answer = thinker.post(RESPONSES, {"input": "hi", "max_output_tokens": 3}).json()
    assert answer["status"] == "incomplete"
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}


def test_items_become_messages(server: Any, make_server: Any, scripted: Any) -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "weather?"}]},
        {"type": "reasoning", "summary": [], "content": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "let me see"}]},
        {"type": "function_call", "call_id": "1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "rain"},
    ]
    response = server.post(RESPONSES, {"input": items, "instructions": "be brief", "max_output_tokens": 1})
    assert response.status_code == 200, response.text
    text = bytes(server.engine.served[-1].prompt_token_ids).decode()
    assert text == "<system>be brief<user>weather?<assistant>let me see<tool>rain<assistant>"
    first, second = (
        {"type": "function_call", "call_id": one, "name": "weather", "arguments": "{}"} for one in ("1", "2")
    )
    template = "{% for m in messages %}{{ m.role }}:{{ m.content }}:{{ (m.tool_calls or []) | length }} {% endfor %}"
    engine = scripted(chat_template=template)
    items = [items[0], items[2], first, second, items[4], first]
    assert make_server(engine).post(RESPONSES, {"input": items}).status_code == 200
    text = bytes(engine.served[-1].prompt_token_ids).decode()
    assert text == "user:weather?:0 assistant:let me see:2 tool:rain:0 assistant::1 ", "one message a turn"


def test_an_error_in_mid_stream_is_told(make_server: Any, scripted: Any) -> None:
    server = make_server(scripted(failures={3: "the step failed"}))
    found = named_events(server.post(RESPONSES, {"input": "hi", "stream": True}).text)
    assert found[-1]["type"] == "response.failed"
    assert found[-1]["response"]["error"] == {"code": "generation_failed", "message": "the step failed"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "king", "content": "x"}]}, "input"),
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        ({"input": [{"type": "web_search_call"}]}, "input[0]"),
        ({"input": [{"type": "function_call"}]}, "input"),
        ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "x", "conversation": "c"}, "conversation"),
        ({"input": "x", "background": True}, "background"),
        ({"input": "x", "prompt": {"id": "p"}}, "prompt"),
        ({"input": "x", "truncation": "auto"}, "truncation"),
        ({"input": "x", "n": 2}, "n"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"input": "x", "text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"input": "x", "text": {"format": {"type": "json_schema"}}}, "text.format"),
        ({"input": "x", "text": {"format": {"type": "json_schema", "schema": 5}}}, "text.format.schema"),
        ({"input": "x", "response_format": {"type": "xml"}}, "response_format.type"),
        ({"input": "x", "tools": [{"type": "function"}]}, "tools[0].name"),
        ({"input": "x", "tools": [WEATHER, WEATHER]}, "tools[1].name"),
        ({"input": "x" * 300}, "input"),
        ({"input": "x", "min_tokens": 9, "max_output_tokens": 3}, "min_tokens"),
    ],
)
def test_what_is_wrong_is_named(server: Any, body: dict[str, Any], param: str) -> None:
    response = server.post(RESPONSES, body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


def test_of_an_empty_list_it_is_said_that_it_is_too_short(server: Any) -> None:
    message = server.post(RESPONSES, {"input": []}).json()["error"]["message"]
    assert message == "input: List should have at least 1 item after validation, not 0, got []"
