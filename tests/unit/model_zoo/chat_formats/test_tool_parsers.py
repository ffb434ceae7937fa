# ruff: noqa: RUF001  # the markers are written with full-width bars, as the model writes them
"""What each format's parser makes of good and of malformed calls. That cuts do not matter is the contract suite's."""

from __future__ import annotations

import json

import pytest
from vcore_model_zoo.chat_formats.deepseek import DeepSeekToolParser
from vcore_model_zoo.chat_formats.hermes import HermesToolParser
from vcore_model_zoo.chat_formats.llama3_json import Llama3JsonToolParser

from vcore.interfaces.chat_format import ChatFormatContext, Tool, ToolDelta, ToolParser
from vcore.server.chat_parser import ChatParser, parse_answer

PARSERS = {"hermes": HermesToolParser, "llama3": Llama3JsonToolParser, "deepseek": DeepSeekToolParser}
BEGIN, END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, SEP, DONE = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"


def make(name: str, template: str | None = None) -> ToolParser:
    return PARSERS[name](options=None, context=ChatFormatContext(chat_template=template))


def parse(name: str, text: str) -> tuple[str | None, list[tuple[str, str]]]:
    """The text, and each call's name and arguments."""
    answer = parse_answer(ChatParser(None, make(name)), text)
    return answer.content, [(call.name, call.arguments) for call in answer.tool_calls]


GOOD = [
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>', None, [("f", '{"a": 1}')]),
    ("hermes", 'Hi.\n<tool_call>\n{"name":"f","arguments":{}}\n</tool_call>\n', "Hi.", [("f", "{}")]),
    (
        "hermes",
        'a <tool_call>{"name": "f"}</tool_call> \n<tool_call>{"name": "g", "parameters": {"b": []}}</tool_call> b',
        "ab",
        [("f", "{}"), ("g", '{"b": []}')],
    ),
    ("hermes", '<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', None, [("f", '{"a": 1}')]),
    ("hermes", r'<tool_call>{"name": "f", "arguments": "{\"a\": 1}"}</tool_call>', None, [("f", '{"a": 1}')]),
    ("hermes", '<tool_call>{"name": "f", "arguments": null}</tool_call>', None, [("f", "{}")]),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "x\ny"}}</tool_call>', None, [("f", r'{"a": "x\ny"}')]),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "</tool_call>"}}', None, [("f", '{"a": "</tool_call>"}')]),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": [1', None, [("f", '{"a": [1')]),
    ("hermes", '<tool_call>{"id": 3, "name": "f", "arguments": {}}</tool_call>', None, [("f", "{}")]),
    ("llama3", '{"name": "f", "parameters": {"a": 1}}', None, [("f", '{"a": 1}')]),
    ("llama3", '\n<|python_tag|>{"name": "f", "parameters": {}}', None, [("f", "{}")]),
    ("llama3", '{"type": "function", "name": "f", "parameters": {}}', None, [("f", "{}")]),
    ("llama3", '{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}}', None, [("f", "{}"), ("g", "{}")]),
    ("llama3", 'So: <|python_tag|>{"name": "f", "parameters": {}} ', "So:", [("f", "{}")]),
    ("llama3", '{"name": "f", "parameters": {}} and then', "and then", [("f", "{}")]),
    ("deepseek", f'So.\n{BEGIN}{CALL}f{SEP}{{"a": 1}}{DONE}{END}', "So.", [("f", '{"a": 1}')]),
    (
        "deepseek",
        f'{BEGIN}{CALL}function{SEP}f\n```json\n{{"a": 1}}\n```{DONE}\n'
        f"{CALL}function{SEP}g\n```json\n{{}}\n```{DONE}{END}x",
        "x",
        [("f", '{"a": 1}'), ("g", "{}")],
    ),
    ("deepseek", f"{BEGIN}{CALL}function{SEP}{{}}{DONE}{END}", None, [("function", "{}")]),
    ("deepseek", f'{CALL}f{SEP}{{"a": "x\ty"}}{DONE}', None, [("f", r'{"a": "x\ty"}')]),
    ("hermes", 'a<tool_call>{"name": "f", "arguments": {}}\n</tool_ca', "a", [("f", "{}")]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "content", "calls"), GOOD)
def test_calls_are_found(name: str, text: str, content: str | None, calls: list[tuple[str, str]]) -> None:
    assert parse(name, text) == (content, calls)


MALFORMED = {
    "hermes": [
        "<tool_call>",
        "<tool_call></tool_call>",
        "a <tool_call> get_weather(city)</tool_call>\n",
        "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter></function></tool_call>",
        "<tool_call>{'name': 'f', 'arguments': {}}</tool_call>",
        '<tool_call>{"name": 3, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "f", "arguments": "no JSON"}</tool_call>',
        '<tool_call>{"name": "f", "args": {}}</tool_call>',
        '<tool_call>{"arguments": {"a": 1}}</tool_call> ',
        '<tool_call>{"arguments": {"a": 1}, "na',
        '<tool_call>[{"name": "f"}]</tool_call>',
        '<tool_call>{"name": "f"',
        "</tool_call>",
        "< tool_call>{}",
    ],
    "llama3": [
        '{"answer": 42}',
        '{"name": "f", "parameters": [1]}',
        '{"name": "f"',
        "{not JSON}",
        ' {"parameters": {}} ',
        'text first {"name": "f", "parameters": {}}',
        "<|python_tag|>print(1)",
        " <|python",
        "; ",
    ],
    "deepseek": [
        BEGIN,
        f"{BEGIN}{END}",
        f"{BEGIN} text",
        f"{BEGIN}{CALL}f{SEP}",
        f"{CALL}f g{SEP}{{}}{DONE}",
        f"{CALL}{SEP}{{}}{DONE}{END}",
        f"{CALL}f{SEP}no JSON{DONE}",
        f"{CALL}function{SEP}f\n```python\n{{}}```",
        f"a {CALL}" + "x" * 2000,
    ],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in MALFORMED.items() for text in texts])
def test_a_malformed_call_is_text_to_the_letter(name: str, text: str) -> None:
    assert parse(name, text) == (text, [])


@pytest.mark.parametrize(
    ("name", "text", "content", "calls"),
    [
        ("hermes", '<tool_call>{"name": "f", "arguments": {}, "b": 2}</tool_call> x', ', "b": 2}</tool_call> x', "{}"),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1,}}</tool_call>', "}}</tool_call>", '{"a": 1,'),
        ("hermes", '<tool_call>{"name": "f", "arguments": {}}x', "x", "{}"),
        ("llama3", '{"name": "f", "parameters": {}}; {"x": 1}', '; {"x": 1}', "{}"),
        ("deepseek", f"{CALL}f{SEP}{{}} x{DONE}", f"x{DONE}", "{}"),
        ("deepseek", f'{CALL}f{SEP}{{"a" 1}}', "1}", '{"a" '),
    ],
)  # fmt: skip
def test_what_spoils_a_call_that_has_begun_comes_after_it_as_text(
    name: str, text: str, content: str, calls: str
) -> None:
    assert parse(name, text) == (content, [("f", calls)])


def test_a_call_after_a_malformed_one_is_found() -> None:
    content, calls = parse("hermes", '<tool_call>no <tool_call>{"name": "f", "arguments": {}}</tool_call>')
    assert content == "<tool_call>no"
    assert calls == [("f", "{}")]


@pytest.mark.parametrize(("name", "text", "content", "calls"), GOOD[:1] + GOOD[10:11] + GOOD[16:17])
def test_arguments_stream_as_soon_as_the_name_is_known(
    name: str, text: str, content: str | None, calls: list[tuple[str, str]]
) -> None:
    parser = make(name)
    told = ""
    at_name = None
    for position, character in enumerate(text):
        for delta in parser.feed(character):
            if isinstance(delta, ToolDelta):
                told += delta.arguments
                at_name = position if at_name is None else at_name
    assert at_name is not None
    assert text[: at_name + 1].endswith("{")
    assert told == calls[0][1]


def test_the_deepseek_form_goes_by_the_template() -> None:
    tool = Tool(name="f", parameters={"properties": {"a": {}}})
    for template, begin in ((None, f"{CALL}f{SEP}"), ("...```json...", f"{CALL}function{SEP}f\n```json\n")):
        form = make("deepseek", template).constraint([tool], single=True, required=True)
        assert form is not None
        assert form.structural_tag is not None
        [tag] = form.structural_tag.structures
        assert tag.begin == begin
        assert json.loads(tag.json_schema) == {"type": "object", "properties": {"a": {}}}


def test_a_call_of_llama_cannot_be_enforced_among_text() -> None:
    assert make("llama3").constraint([Tool(name="f")], single=False, required=False) is None
