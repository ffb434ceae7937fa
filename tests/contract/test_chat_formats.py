"""What every parser of a chat format keeps to, whoever wrote it: one suite over all that are installed, and ours.

The texts are built of what the formats have in common with each other and of what they do not: calls in each format,
markers, parts of markers, text. Each parser gets them all, cut in any way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcore.config import PluginsConfig
from vcore.interfaces.chat_format import (
    ChatFormatContext,
    ReasoningDelta,
    ReasoningParser,
    TextDelta,
    Tool,
    ToolDelta,
    ToolParser,
    held_back,
)
from vcore.plugins import Catalog, CatalogEntry, PluginKind, ReasoningParserSpec, ToolParserSpec, discover
from vcore.server.chat_parser import ChatAnswer, ChatParser, parse_answer
from vcore.structured_output import StructuredOutput

WEATHER = Tool(
    name="get_weather",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
CLOCK = Tool(name="clock")


class BracketParser(ToolParser):
    """``[call NAME]``, without arguments: the suite's own example of a format."""

    def __init__(self, *, options: None, context: ChatFormatContext) -> None:
        self._buffer, self._count = "", 0

    def feed(self, text: str) -> list[TextDelta | ToolDelta]:
        self._buffer += text
        deltas: list[TextDelta | ToolDelta] = []
        while "[call " in self._buffer:
            before, _, after = self._buffer.partition("[call ")
            name, end, rest = after.partition("]")
            if not end:
                self._show(before, deltas)
                self._buffer = "[call " + after
                return deltas
            self._show(before, deltas)
            deltas.append(ToolDelta(self._count, name=name, arguments="{}"))
            self._count += 1
            self._buffer = rest
        keep = held_back(self._buffer, ("[call ",))
        self._show(self._buffer[: len(self._buffer) - keep], deltas)
        self._buffer = self._buffer[len(self._buffer) - keep :]
        return deltas

    def finish(self) -> list[TextDelta | ToolDelta]:
        deltas: list[TextDelta | ToolDelta] = []
        self._show(self._buffer, deltas)
        return deltas

    def _show(self, text: str, deltas: list[TextDelta | ToolDelta]) -> None:
        if text:
            deltas.append(TextDelta(text))


class AsideParser(ReasoningParser):
    """``(aside) ... (end)``: the suite's own example."""

    end_marker = "(end)"

    def __init__(self, *, options: None, context: ChatFormatContext) -> None:
        self._buffer, self._ended = "", False

    def starts_in_reasoning(self, prompt: str) -> bool:
        return True

    def feed(self, text: str) -> list[ReasoningDelta | TextDelta]:
        if self._ended:
            return [TextDelta(text)] if text else []
        self._buffer += text
        before, marker, after = self._buffer.partition("(end)")
        if marker:
            self._ended, self._buffer = True, ""
            return [ReasoningDelta(before), TextDelta(after)] if after else [ReasoningDelta(before)]
        keep = held_back(before, ("(end)",))
        self._buffer = before[len(before) - keep :]
        return [ReasoningDelta(before[: len(before) - keep])]

    def finish(self) -> list[ReasoningDelta | TextDelta]:
        return [ReasoningDelta(self._buffer)] if self._buffer else []


OURS = [
    ToolParserSpec(name="brackets", load=BracketParser, api="1.0"),
    ReasoningParserSpec(name="aside", load=AsideParser, api="1.0"),
]
CATALOG: Catalog = discover(PluginsConfig(), objects=[OURS])
TOOL_PARSERS = [one for one in CATALOG.entries if one.kind is PluginKind.TOOL_PARSER]
REASONING_PARSERS = [one for one in CATALOG.entries if one.kind is PluginKind.REASONING_PARSER]

CALLS = [
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris \\"é\\" {]"}}\n</tool_call>',
    '<tool_call>{"arguments": {"a": [1, -2.5e3, true, null]}, "name": "clock"}</tool_call>',
    '{"name": "get_weather", "parameters": {"city": "Rome"}}',
    '; {"name": "clock", "parameters": {}}',
    '<|python_tag|>{"name": "clock", "parameters": null}',
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{"city": "Oslo"}\n```'  # noqa: RUF001
    "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",  # noqa: RUF001
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>clock<｜tool▁sep｜>{"a": {}}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',  # noqa: RUF001
    "[call clock]",
    "<think>\nhm </thin k>\n</think>\n\n",
    "(aside) so (end)",
]
PIECES = [*CALLS, *(call[:cut] for call in CALLS for cut in (5, 19, 40, -20)), *(call[9:] for call in CALLS)]
PIECES += [" ", "\n", "Hello", "é", "{", '"', "</tool_call>", "<", "```", "\\", "\x0b", "a text without calls."]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)
CUTS = st.lists(st.integers(1, 12), max_size=40)
PROMPTS = ["", "user: hi\nassistant:<think>\n", "assistant:<think>\n\n</think>\n\n"]


def entry_id(entry: CatalogEntry) -> str:
    return str(entry.name)


def cut(text: str, sizes: Sequence[int]) -> list[str]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    return [*pieces, text[at:]]


def make(entry: CatalogEntry, **context: Any) -> Any:
    return CATALOG.create(entry, context=ChatFormatContext(tools=(WEATHER, CLOCK), **context))


def run(parser: Any, pieces: Sequence[str]) -> list[Any]:
    return [delta for piece in pieces for delta in parser.feed(piece)] + parser.finish()


def without_space(text: str) -> str:
    return "".join(text.split())


def test_the_suite_sees_all_that_are_installed() -> None:
    registered = {spec.name for entry in entry_points(group="vcore") for spec in _specs(entry.load())}
    assert {one.name for one in (*TOOL_PARSERS, *REASONING_PARSERS)} == registered | {"brackets", "aside"}


def _specs(module: object) -> list[Any]:
    hooks = ("vcore_tool_parsers", "vcore_reasoning_parsers")
    return [spec for hook in hooks for spec in getattr(module, hook, list)()]


@pytest.mark.parametrize("entry", TOOL_PARSERS, ids=entry_id)
@given(text=TEXTS, sizes=CUTS)
@settings(max_examples=80, deadline=None)
def test_calls_do_not_depend_on_where_the_text_is_cut(entry: CatalogEntry, text: str, sizes: list[int]) -> None:
    whole = ChatAnswer.of(run(make(entry), [text]))
    assert ChatAnswer.of(run(make(entry), cut(text, sizes))) == whole
    assert ChatAnswer.of(run(make(entry), list(text))) == whole


@pytest.mark.parametrize("prompt", PROMPTS, ids=["no prompt", "in reasoning", "after reasoning"])
@pytest.mark.parametrize("entry", REASONING_PARSERS, ids=entry_id)
@given(text=TEXTS, sizes=CUTS)
@settings(max_examples=60, deadline=None)
def test_reasoning_does_not_depend_on_where_the_text_is_cut(
    entry: CatalogEntry, prompt: str, text: str, sizes: list[int]
) -> None:
    answers = []
    for pieces in ([text], cut(text, sizes), list(text)):
        parser = make(entry)
        parser.starts_in_reasoning(prompt)
        answers.append(ChatAnswer.of(run(parser, pieces)))
    assert answers[0] == answers[1] == answers[2]
    shown = without_space((answers[0].reasoning or "") + (answers[0].content or ""))
    assert _is_subsequence(shown, without_space(text))
    assert len(without_space(text)) - len(shown) <= len("<think></think>") * 2


@pytest.mark.parametrize("entry", TOOL_PARSERS, ids=entry_id)
@given(text=TEXTS)
@settings(max_examples=60, deadline=None)
def test_no_text_is_lost_and_none_is_made_up(entry: CatalogEntry, text: str) -> None:
    """What is shown stands in the text, in order; if there is no call, all of it is shown."""
    answer = ChatAnswer.of(run(make(entry), [text]))
    content = without_space(answer.content or "")
    if not answer.tool_calls:
        assert content == without_space(text.removeprefix("<|python_tag|>")) or content == without_space(text)
        return
    assert _is_subsequence(content, without_space(text))
    for call in answer.tool_calls:
        assert call.name in text


def _is_subsequence(part: str, whole: str) -> bool:
    characters = iter(whole)
    return all(character in characters for character in part)


@pytest.mark.parametrize("entry", TOOL_PARSERS, ids=entry_id)
@given(text=TEXTS)
@settings(max_examples=60, deadline=None)
def test_calls_are_numbered_and_named_once(entry: CatalogEntry, text: str) -> None:
    calls = [delta for delta in run(make(entry), list(text)) if isinstance(delta, ToolDelta)]
    named = [delta.index for delta in calls if delta.name is not None]
    assert named == list(range(len(named)))
    begun: set[int] = set()
    for delta in calls:
        if delta.name is not None:
            begun.add(delta.index)
        assert delta.index in begun
        assert delta.index == max(begun), "a call goes on after the next has begun"


@pytest.mark.parametrize("entry", TOOL_PARSERS, ids=entry_id)
def test_plain_text_passes_at_once(entry: CatalogEntry) -> None:
    parser = make(entry)
    text = "A plain answer, word by word, and nothing to call"
    shown = "".join(delta.text for word in text.split(" ") for delta in parser.feed(word + " "))
    assert len(shown) >= len(text) - len("call "), "text that cannot be a call is held back"


@pytest.mark.parametrize("entry", TOOL_PARSERS, ids=entry_id)
@pytest.mark.parametrize(("single", "required"), [(True, True), (False, True), (False, False)])
def test_what_is_enforced_is_what_is_parsed(entry: CatalogEntry, single: bool, required: bool) -> None:
    """An answer of the enforced form, written by hand from its tags, is those calls and nothing else."""
    form = make(entry).constraint([WEATHER, CLOCK], single=single, required=required)
    if form is None:
        return
    assert isinstance(form, StructuredOutput)
    tag = form.structural_tag
    assert tag is not None
    arguments = ['{"city": "Bern"}', "{}"]
    written = [f"{one.begin}{args}{one.end}" for one, args in zip(tag.structures, arguments, strict=True)]
    assert json.loads(tag.structures[0].json_schema)["required"] == ["city"]
    if required:
        text = tag.prefix + tag.separator.join(written[: tag.most]) + tag.suffix
    else:
        text = "Let me see. " + written[0] + written[1]
    answer = parse_answer(ChatParser(None, make(entry)), text)
    assert answer.content == (None if required else "Let me see.")
    expected = [("get_weather", arguments[0]), ("clock", arguments[1])]
    assert [(call.name, call.arguments) for call in answer.tool_calls] == (expected[:1] if single else expected)
