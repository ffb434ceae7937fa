# ruff: noqa: RUF001  # markers with full-width bars, as models have them
"""`ChatFormat`: which parsers serve a model, and what tools ask of sampling. `ChatParser`: both parsers as one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest

from vcore.config import PluginsConfig
from vcore.config.models import ChatConfig
from vcore.errors import PluginNotFoundError, RequestError
from vcore.interfaces.chat_format import (
    ChatFormatContext,
    ReasoningDelta,
    ReasoningParser,
    TextDelta,
    Tool,
    ToolDelta,
    ToolParser,
)
from vcore.plugins import Catalog, ToolParserSpec, discover
from vcore.sampling_params import SamplingParams
from vcore.server.chat_parser import ChatAnswer, ChatParser, ToolCall, parse_answer
from vcore.server.tool_calls import ChatFormat, ToolChoice, choose_chat_format, parse_tool_choice, parse_tools
from vcore.structured_output import StructuredOutput

QWEN3 = '<|im_start|>...<tool_call>\n{"name": ...}</tool_call>...<think>\n\n</think>'
CODER = "<|im_start|>...<tool_call>\n<function=example>...</tool_call>"
LLAMA = '<|start_header_id|>... {"name": function name, "parameters": dictionary'
R1 = "<｜User｜>...<｜Assistant｜><｜tool▁calls▁begin｜>...```json... split('</think>')"
F = Tool(name="f", parameters={"type": "object"})
G = Tool(name="g", strict=True)
CALL = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return discover(PluginsConfig(), objects=[[ToolParserSpec(name="marked", load=Marked, api="1.0")]])


class Marked(ToolParser):
    """Needs its special tokens, and enforces nothing."""

    keeps_special_tokens = True

    def __init__(self, *, options: None, context: ChatFormatContext) -> None: ...

    def feed(self, text: str) -> list[TextDelta | ToolDelta]:
        return [TextDelta(text)]

    def finish(self) -> list[TextDelta | ToolDelta]:
        return []


def choose(catalog: Catalog, template: str | None, **chat: Any) -> ChatFormat:
    return choose_chat_format(ChatConfig(**chat), catalog, None, chat_template=template)


# Which parsers


@pytest.mark.parametrize(
    ("template", "names"),
    [
        (None, (None, None)),
        ("{% for message in messages %}", (None, None)),
        (QWEN3, ("hermes", "qwen3")),
        (CODER, (None, None)),
        (LLAMA, ("llama3_json", None)),
        (R1, ("deepseek", "deepseek_r1")),
    ],
)
def test_auto_goes_by_the_chat_template(
    catalog: Catalog, template: str | None, names: tuple[str | None, str | None]
) -> None:
    assert choose(catalog, template).names == names


def test_the_configuration_may_name_them_or_none(catalog: Catalog) -> None:
    assert choose(catalog, QWEN3, tool_parser="llama3_json", reasoning_parser="none").names == ("llama3_json", None)
    assert choose(catalog, None, tool_parser="hermes").names == ("hermes", None)
    with pytest.raises(PluginNotFoundError, match="did you mean 'hermes'"):
        choose(catalog, None, tool_parser="hermis")


def test_the_models_own_template_is_that_of_its_tokenizer(catalog: Catalog) -> None:
    class Tokenizer:
        chat_templates: Mapping[str, str] = {"default": "plain", "tool_use": QWEN3}

    found = choose_chat_format(ChatConfig(), catalog, Tokenizer())  # type: ignore[arg-type]
    assert found.names == ("hermes", "qwen3")


# Sampling


def test_tools_without_a_parser_are_refused_with_what_there_is(catalog: Catalog) -> None:
    plain = choose(catalog, None)
    with pytest.raises(RequestError, match=r"no tool parser.*chat\.tool_parser.*hermes") as caught:
        plain.sampling_params(SamplingParams(), "", [F], ToolChoice())
    assert caught.value.param == "tools"
    params = SamplingParams()
    assert plain.sampling_params(params, "", [F], ToolChoice("none")) is params
    assert plain.sampling_params(params) is params


def test_a_demanded_call_is_the_form_of_the_answer(catalog: Catalog) -> None:
    hermes = choose(catalog, None, tool_parser="hermes")

    def form(tools: list[Tool], choice: ToolChoice) -> Any:
        return hermes.sampling_params(SamplingParams(), "", tools, choice).structured_output

    assert form([F], ToolChoice("auto")) is None
    required = form([F, G], ToolChoice("required")).structural_tag
    assert (len(required.structures), required.required, required.most) == (2, True, None)
    named = form([F, G], ToolChoice("named", "g", single=True)).structural_tag
    assert [tag.begin for tag in named.structures] == ['<tool_call>\n{"name": "g", "arguments": ']
    assert named.most == 1
    strict = form([F, G], ToolChoice("auto")).structural_tag
    assert (len(strict.structures), strict.required) == (2, False)


def test_a_form_of_its_own_contradicts_a_demanded_call_and_wins_over_strict_tools(catalog: Catalog) -> None:
    hermes = choose(catalog, None, tool_parser="hermes")
    params = SamplingParams(structured_output=StructuredOutput(json_object=True))
    with pytest.raises(RequestError, match="contradict each other") as caught:
        hermes.sampling_params(params, "", [F], ToolChoice("required"))
    assert caught.value.param == "tool_choice"
    assert hermes.sampling_params(params, "", [G], ToolChoice("auto")) is params


def test_a_form_begins_after_the_reasoning_that_the_prompt_began(catalog: Catalog) -> None:
    qwen = choose(catalog, QWEN3)
    own = SamplingParams(structured_output=StructuredOutput(json_object=True))
    for params, tools, choice in ((own, [], None), (SamplingParams(), [F], ToolChoice("required"))):
        during = qwen.sampling_params(params, "hi <think>\n", tools, choice).structured_output
        assert during is not None
        assert during.after == "</think>"
        afterwards = qwen.sampling_params(params, "hi <think>\n\n</think>\n", tools, choice).structured_output
        assert afterwards is not None
        assert afterwards.after == ""


def test_a_format_of_special_tokens_keeps_them_in_the_text(catalog: Catalog) -> None:
    marked = choose(catalog, None, tool_parser="marked")
    assert not marked.sampling_params(SamplingParams(), "", [F], ToolChoice()).skip_special_tokens
    assert marked.sampling_params(SamplingParams()).skip_special_tokens
    with pytest.raises(RequestError, match="'marked' cannot enforce calls"):
        marked.sampling_params(SamplingParams(), "", [F], ToolChoice("required"))


# Parsing


def test_a_parser_looks_for_calls_only_if_there_are_tools_to_call(catalog: Catalog) -> None:
    qwen = choose(catalog, QWEN3)
    text = f"hm</think>{CALL}"
    answer = parse_answer(qwen.new_parser("<think>", [F], ToolChoice()), text)
    assert (answer.reasoning, answer.content) == ("hm", None)
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [("f", "{}")]
    for tools, choice in (([], ToolChoice()), ([F], ToolChoice("none"))):
        assert parse_answer(qwen.new_parser("<think>", tools, choice), text) == ChatAnswer(CALL, "hm")
    assert parse_answer(qwen.new_parser("<think>", reasoning=False), text) == ChatAnswer(text, None)


def test_calls_get_ids_once_and_pieces_are_joined(catalog: Catalog) -> None:
    parser = choose(catalog, QWEN3).new_parser("", [F])
    deltas = [delta for character in f"{CALL}{CALL}" for delta in parser.feed(character)] + parser.finish()
    ids = [delta.id for delta in deltas if isinstance(delta, ToolDelta) and delta.id is not None]
    assert len(ids) == len(set(ids)) == parser.num_calls == 2
    assert all(one.startswith("call_") and len(one) == 29 for one in ids)
    whole = choose(catalog, QWEN3).new_parser("", [F]).feed(f"a{CALL}b")
    assert [type(delta) for delta in whole] == [TextDelta, ToolDelta, TextDelta]


def test_an_answer_is_put_together_by_index() -> None:
    deltas = [
        ReasoningDelta("r"),
        TextDelta("a"),
        ToolDelta(0, "f", "{", "x"),
        ToolDelta(0, None, "}"),
        TextDelta("b"),
        ToolDelta(1, "g", "{}", "y"),
    ]
    expected = ChatAnswer("ab", "r", [ToolCall("x", "f", "{}"), ToolCall("y", "g", "{}")])
    assert ChatAnswer.of(deltas) == expected
    assert ChatAnswer.of([]) == ChatAnswer(None, None)


class Failing(Marked, ReasoningParser):
    """Raises where it is told to."""

    def __init__(self, where: str) -> None:
        self._where = where

    def starts_in_reasoning(self, prompt: str) -> bool:
        return bool(self._raise("start"))

    def feed(self, text: str) -> list[Any]:
        return [TextDelta(text)] if self._raise(text) is None else []

    def finish(self) -> list[Any]:
        return self._raise("finish") or []

    def _raise(self, where: str) -> None:
        if where == self._where:
            raise RuntimeError("broken")


@pytest.mark.parametrize("where", ["start", "one", "two", "finish"])
@pytest.mark.parametrize("role", ["reasoning", "tools"])
def test_a_parser_that_raises_is_named_and_no_text_is_lost(
    where: str, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    parser = ChatParser(**{role: Failing(where)})  # type: ignore[arg-type]
    with caplog.at_level(logging.ERROR):
        answer = ChatAnswer.of([*parser.feed("one"), *parser.feed("two"), *parser.finish()])
    assert answer == ChatAnswer("onetwo", None)
    assert ("'Failing' raised" in caplog.text) == (role == "reasoning" or where != "start")


# What a request says


def test_tools_are_read() -> None:
    raw = [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}},
        {"type": "function", "function": {"name": "g", "parameters": None, "strict": True}},
    ]
    assert parse_tools(raw) == (
        Tool(name="f", description="d", parameters={"type": "object"}),
        Tool(name="g", strict=True),
    )
    assert parse_tools(None) == ()


@pytest.mark.parametrize(
    ("raw", "param", "message"),
    [
        ([{"type": "web"}], "tools[0]", "expected .*function"),
        (["f"], "tools[0]", "expected"),
        ([{"function": {}}], "tools[0].function.name", "must be a text"),
        ([{"function": {"name": "f", "parameters": "x"}}], "tools[0].function.parameters", "got str"),
        ([{"function": {"name": "f"}}, {"function": {"name": "f"}}], "tools[1].function.name", "two tools are called"),
    ],
)
def test_malformed_tools_are_refused(raw: list[Any], param: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        parse_tools(raw)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("raw", "tools", "parallel", "choice"),
    [
        (None, [F], None, ToolChoice("auto")),
        (None, [], None, ToolChoice("none")),
        ("auto", [F], False, ToolChoice("auto", single=True)),
        ("auto", [], None, ToolChoice("none")),
        ("none", [F], True, ToolChoice("none")),
        ("required", [F], None, ToolChoice("required")),
        ({"type": "function", "function": {"name": "f"}}, [F], None, ToolChoice("named", "f", single=True)),
    ],
)
def test_a_choice_is_read(raw: Any, tools: list[Tool], parallel: bool | None, choice: ToolChoice) -> None:
    assert parse_tool_choice(raw, tools, parallel=parallel) == choice


@pytest.mark.parametrize(
    ("raw", "tools", "message"),
    [
        ("sometimes", [F], "expected none, auto, required"),
        ("required", [], "the request has no tools"),
        ({"type": "function"}, [F], "expected .*function"),
        ({"function": {"name": "h"}}, [F], r"names 'h', which is no tool of the request \(f\)"),
        ({"function": {"name": "h"}}, [], "it has none"),
    ],
)
def test_a_malformed_choice_is_refused(raw: Any, tools: list[Tool], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        parse_tool_choice(raw, tools)
    assert caught.value.param == "tool_choice"
