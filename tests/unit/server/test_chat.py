"""``/v1/chat/completions``: messages, templates, logprobs, tool calls, reasoning."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from vcore.server.chat_prompt import _is_long

CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
PARSERS = {"chat.tool_parser": "hermes", "chat.reasoning_parser": "qwen3"}
ANSWER = (
    "<think>\nhmm é\n</think>\n\nLet me see.\n"
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>'
)


def joined(chunks: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """What a client makes of a stream, in the shape of whole choices."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        assert chunk["object"] == "chat.completion.chunk"
        for piece in chunk["choices"]:
            delta = piece["delta"]
            if piece["index"] not in choices:
                assert delta == {"role": "assistant", "content": ""}
                choices[piece["index"]] = {"message": {"content": ""}, "logprobs": [], "finish_reason": None}
                continue
            choice = choices[piece["index"]]
            assert choice["finish_reason"] is None, "something came after the end"
            choice["finish_reason"] = piece["finish_reason"]
            choice["logprobs"] += (piece["logprobs"] or {"content": []})["content"]
            for name in ("content", "reasoning_content"):
                if name in delta:
                    choice["message"][name] = choice["message"].get(name, "") + delta[name]
            for call in delta.get("tool_calls", ()):
                add_call(choice["message"].setdefault("tool_calls", []), call)
    return choices


def add_call(calls: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    if piece["index"] == len(calls):
        calls.append({"id": piece["id"], "type": piece["type"], "function": dict(piece["function"])})
    else:
        calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]


def without_ids(message: dict[str, Any]) -> dict[str, Any]:
    message = {name: value for name, value in message.items() if name not in ("role", "refusal")}
    message["content"] = message["content"] or ""
    if "tool_calls" in message:
        message["tool_calls"] = [{**call, "id": None} for call in message["tool_calls"]]
    return message


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"n": 3},
        {"logprobs": True, "top_logprobs": 2},
        {"logprobs": True},
        {"stop": ["see"]},
        {"max_completion_tokens": 7},
        {"max_tokens": 60},
        {"tools": [WEATHER]},
        {"tools": [WEATHER], "parallel_tool_calls": False},
        {"tools": [WEATHER], "tool_choice": "none"},
        {"tools": [WEATHER], "n": 2, "logprobs": True},
        {"include_reasoning": False},
    ],
)
def test_a_stream_says_what_the_whole_answer_says(make_server: Any, scripted: Any, extra: dict[str, Any]) -> None:
    server = make_server(scripted(script=lambda request: ANSWER, overrides=PARSERS, max_model_len=1024))
    whole = server.post(CHAT, {"messages": HI, **extra}).json()
    streamed = joined(server.stream(CHAT, {"messages": HI, **extra}))
    assert sorted(streamed) == [choice["index"] for choice in whole["choices"]]
    for choice in whole["choices"]:
        got = streamed[choice["index"]]
        assert without_ids(got["message"]) == without_ids(choice["message"])
        assert got["finish_reason"] == choice["finish_reason"]
        assert got["logprobs"] == (choice["logprobs"] or {"content": []})["content"]


def test_tool_calls_and_reasoning_are_told_apart(make_server: Any, scripted: Any) -> None:
    server = make_server(scripted(script=lambda request: ANSWER, overrides=PARSERS, max_model_len=1024))
    [choice] = server.post(CHAT, {"messages": HI, "tools": [WEATHER]}).json()["choices"]
    message = choice["message"]
    assert choice["finish_reason"] == "tool_calls"
    assert message["reasoning_content"].strip() == "hmm é"
    assert message["content"].strip() == "Let me see."
    assert [json.loads(call["function"]["arguments"])["city"] for call in message["tool_calls"]] == ["Zürich", "Bern"]
    assert len({call["id"] for call in message["tool_calls"]}) == 2
    single = server.post(CHAT, {"messages": HI, "tools": [WEATHER], "parallel_tool_calls": False}).json()
    assert len(single["choices"][0]["message"]["tool_calls"]) == 1
    silent = server.post(CHAT, {"messages": HI, "include_reasoning": False}).json()["choices"][0]["message"]
    assert "reasoning_content" not in silent
    assert "hmm" not in silent["content"]


def test_logprobs_have_bytes_of_parts_of_characters(make_server: Any, scripted: Any) -> None:
    server = make_server(scripted(script=lambda request: "é"))
    body = {"messages": HI, "logprobs": True, "top_logprobs": 1, "max_tokens": 2}
    [choice] = server.post(CHAT, body).json()["choices"]
    first, second = choice["logprobs"]["content"]
    assert bytes(first["bytes"] + second["bytes"]).decode() == "é" == choice["message"]["content"]
    assert [len(entry["top_logprobs"]) for entry in (first, second)] == [1, 1]
    assert first["top_logprobs"][0]["logprob"] == -0.25


def test_messages_reach_the_template(make_server: Any, scripted: Any) -> None:
    template = "{% for m in messages %}[{{ m.role }}|{{ m.content }}|"
    template += "{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments.city }}{% endif %}]"
    template += "{% endfor %}{{ color }}{% if add_generation_prompt %}>{% endif %}"
    engine = scripted(chat_template=template)
    server = make_server(engine)
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
    messages = [
        {"role": "developer", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}], "name": "me"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "d"},
    ]
    body = {"messages": messages, "chat_template_kwargs": {"color": "red"}, "max_tokens": 1}
    assert server.post(CHAT, body).status_code == 200
    text = bytes(engine.served[-1].prompt_token_ids).decode()
    assert text == "[system|a|][user|bc|][assistant||Bern][tool|d|]red>"
    assert server.post(CHAT, body | {"add_generation_prompt": False}).status_code == 200
    assert not bytes(engine.served[-1].prompt_token_ids).decode().endswith(">")


def test_an_empty_list_of_calls_is_none(make_server: Any, scripted: Any) -> None:
    server = make_server(scripted(chat_template="{{ 'tool_calls' in messages[0] }}"))
    message = {"role": "assistant", "content": "a", "tool_calls": []}
    assert server.post(CHAT, {"messages": [message], "max_tokens": 1}).status_code == 200
    assert bytes(server.engine.served[-1].prompt_token_ids) == b"False"


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"messages": HI}, "here"),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, "elsewhere"),
        ({"messages": HI * 100}, "elsewhere"),
        ({"messages": HI, "tools": [{"type": "function", "function": {"name": "f", "description": "x" * 5000}}]},
         "elsewhere"),
        ({"messages": [{"role": "user", "content": "hi", "more": [1] * 5000}]}, "elsewhere"),
        ({"messages": HI, "chat_template_kwargs": {"notes": ["x" * 5000]}}, "elsewhere"),
    ],
    ids=["short", "long", "many", "tools", "numbers", "variables"],
)  # fmt: skip
def test_what_takes_long_to_render_keeps_nobody_waiting(
    make_server: Any, scripted: Any, body: dict[str, Any], where: str
) -> None:
    engine = scripted(max_model_len=20_000, overrides={"chat.tool_parser": "hermes"})
    server, render, threads = make_server(engine), engine.render_chat, []

    def watched(*args: Any, **options: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return render(*args, **options)

    engine.render_chat = watched
    assert server.post(CHAT, {**body, "max_tokens": 1}).status_code == 200
    assert threads == [where == "here"]


def test_no_more_is_looked_at_than_it_takes_to_see_that_it_is_long() -> None:
    class Unread(Mapping[str, Any]):
        def values(self) -> Any:
            raise AssertionError("it was read")

        __getitem__ = __iter__ = __len__ = values

    assert _is_long([Unread(), "x" * 5000])
    assert _is_long([Unread(), [[]] * 5000])
    assert not _is_long([["short"] * 3, {"n": 1}])


def test_the_template_is_compiled_before_the_first_request(make_server: Any, scripted: Any, tmp_path: Path) -> None:
    engine, rendered = scripted(), []
    engine.render_chat = lambda conversation, **options: rendered.append(options)
    (tmp_path / "mine.jinja").write_text("mine")
    make_server(engine, chat_template=tmp_path / "mine.jinja")
    assert rendered == [{"chat_template": "mine"}]


@pytest.mark.parametrize("name", ["self", "conversation", "messages_", "conversations", "tokenizer", "text", "", "a b"])
def test_a_variable_of_a_template_may_have_any_name(make_server: Any, scripted: Any, name: str) -> None:
    server = make_server(scripted(chat_template="{{ messages[0].content }}"))
    response = server.post(CHAT, {"messages": HI, "max_tokens": 1, "chat_template_kwargs": {name: 1}})
    assert response.status_code in (200, 400), response.text  # some names are the library's own


def test_an_error_shows_the_first_roles_alone(make_server: Any, scripted: Any) -> None:
    server = make_server(scripted(chat_template="{{ raise_exception('no') }}"))
    response = server.post(CHAT, {"messages": HI * 5000})
    assert response.status_code == 400
    assert len(response.text) < 1000


def test_an_answer_goes_on_with_the_last_message(server: Any) -> None:
    messages = [*HI, {"role": "assistant", "content": "well"}]
    assert server.post(CHAT, {"messages": messages, "continue_final_message": True}).status_code == 200
    assert bytes(server.engine.served[-1].prompt_token_ids).decode() == "<user>hi<assistant>well"


def test_the_operators_template_is_used(make_server: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ messages[0].content }}!")
    server = make_server(chat_template=tmp_path / "mine.jinja")
    assert server.post(CHAT, {"messages": HI}).status_code == 200
    assert bytes(server.engine.served[-1].prompt_token_ids) == b"hi!"


def test_as_many_tokens_as_fit_are_generated_by_default(make_server: Any, scripted: Any) -> None:
    server = make_server(scripted(script=lambda request: "x" * 1000))
    answer = server.post(CHAT, {"messages": HI}).json()
    assert answer["usage"]["total_tokens"] == 256
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": HI, "top_logprobs": 2}, "top_logprobs"),
        ({"messages": HI, "logprobs": 2}, "logprobs"),
        ({"messages": HI, "max_completion_tokens": 0}, "max_completion_tokens"),
        ({"messages": HI, "tools": [WEATHER]}, "tools"),
        ({"messages": HI, "tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"messages": HI, "tool_choice": "required"}, "tool_choice"),
        ({"messages": HI, "functions": [{"name": "f"}]}, "functions"),
        ({"messages": HI, "modalities": ["text", "audio"]}, "modalities"),
        ({"messages": HI, "audio": {}}, "audio"),
        ({"messages": HI, "web_search_options": {}}, "web_search_options"),
        ({"messages": HI, "chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs"),
        ({"messages": HI * (2**14 + 1)}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * (2**14 + 1)}]}, "messages"),
        ({"messages": HI, "tools": [WEATHER] * 1025}, "tools"),
        ({"messages": HI, "continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
        ({"messages": HI, "response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"messages": [{"role": "user", "content": "x" * 250}]}, "messages"),
        ({"messages": HI, "min_tokens": 9, "max_tokens": 3}, "min_tokens"),
    ],
)
def test_what_is_wrong_is_named(server: Any, body: dict[str, Any], param: str) -> None:
    response = server.post(CHAT, body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert server.post(CHAT, body | {"stream": True}).json() == response.json()
