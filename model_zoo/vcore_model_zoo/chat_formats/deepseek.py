# ruff: noqa: RUF001, RUF002  # the markers are written with full-width bars, as the model writes them
"""Calls as DeepSeek V3, R1 and V3.1 write them, between markers of their own:

    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\\n```json\\nJSON\\n```<｜tool▁call▁end｜>...<｜tool▁calls▁end｜>
    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>JSON<｜tool▁call▁end｜>...<｜tool▁calls▁end｜>

The first is that of V3 and R1, the second that of V3.1. Either is read, whatever the model; which one is enforced goes
by the chat template.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum, auto

from vcore.interfaces.chat_format import ChatFormatContext, TextDelta, Tool, ToolDelta, ToolParser
from vcore.structured_output import StructuralTag, StructuredOutput, Tag
from vcore_model_zoo.chat_formats.call_deltas import CallDeltas
from vcore_model_zoo.chat_formats.call_reader import in_json
from vcore_model_zoo.chat_formats.held_text import HeldText
from vcore_model_zoo.chat_formats.hermes import object_schema
from vcore_model_zoo.chat_formats.json_scanner import JsonScanner, Step

__all__ = ["DeepSeekToolParser"]

_ALL_BEGIN, _ALL_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_BEGIN, _SEP, _END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
_FENCE = "```"
_HEAD = re.compile(
    rf"\s*function{_SEP}\s*(?P<fenced>[^\s`{{]+)\s*{_FENCE}(?:json)?\s*\{{|\s*(?P<bare>[^\s{{]+?){_SEP}\s*\{{"
)
_MOST_HEAD = 1024
"""More characters than a head has."""


class _State(Enum):
    TEXT = auto()
    BETWEEN = auto()
    """After the marker of all calls, or after a call."""
    HEAD = auto()
    """After a call's marker, up to the first brace."""
    ARGUMENTS = auto()
    CLOSING = auto()
    """After the arguments."""


class DeepSeekToolParser(ToolParser):
    """Text, then calls between markers, then text."""

    def __init__(self, *, options: None, context: ChatFormatContext) -> None:
        """Begin in text."""
        self._fenced = context.chat_template is not None and f"{_FENCE}json" in context.chat_template
        self._text = HeldText([_ALL_BEGIN, _BEGIN])
        self._calls = CallDeltas()
        self._scanner = JsonScanner()
        self._state = _State.TEXT
        self._buffer = ""
        """What has come since the state was entered, in the states that wait for something."""
        self._lead = ""
        """Markers before a head, to be shown if it is none."""

    def feed(self, text: str) -> list[TextDelta | ToolDelta]:
        """A call is told of once its name is known and its arguments have begun."""
        deltas: list[TextDelta | ToolDelta] = []
        rest: str | None = text
        while rest is not None:
            if self._state is _State.TEXT:
                rest = self._in_text(rest, deltas)
            elif self._state is _State.BETWEEN:
                rest = self._between(self._buffer + rest, deltas)
            elif self._state is _State.HEAD:
                rest = self._in_head(rest, deltas)
            elif self._state is _State.ARGUMENTS:
                rest = self._in_arguments(rest, deltas)
            else:
                rest = self._close(self._buffer + rest)
        return deltas

    def finish(self) -> list[TextDelta | ToolDelta]:
        """A call that has not begun its arguments is text."""
        if self._state is _State.HEAD or (self._state is _State.BETWEEN and self._lead):
            return [*self._text.was_text(self._lead + self._buffer, "")]
        if self._state in (_State.BETWEEN, _State.CLOSING):
            self._text.call_ended(self._buffer)
        return [*self._text.finish()]

    def constraint(self, tools: Sequence[Tool], *, single: bool, required: bool) -> StructuredOutput:
        """Each call between its markers, the arguments by the tool's schema."""
        tags = []
        for tool in tools:
            begin, end = f"{_BEGIN}{tool.name}{_SEP}", _END
            if self._fenced:
                begin, end = f"{_BEGIN}function{_SEP}{tool.name}\n{_FENCE}json\n", f"\n{_FENCE}{_END}"
            tags.append(Tag(begin=begin, json_schema=object_schema(tool), end=end))
        tag = StructuralTag(
            structures=tuple(tags),
            triggers=(_BEGIN,),
            required=required,
            prefix=_ALL_BEGIN,
            separator="\n" if self._fenced else "",
            suffix=_ALL_END,
            most=1 if single else None,
        )
        return StructuredOutput(structural_tag=tag)

    def _in_text(self, text: str, deltas: list[TextDelta | ToolDelta]) -> str | None:
        self._text.add(text)
        shown, marker, rest = self._text.until_marker()
        deltas += shown
        if marker is None:
            return None
        self._enter(_State.BETWEEN if marker == _ALL_BEGIN else _State.HEAD, lead=marker)
        return rest

    def _between(self, text: str, deltas: list[TextDelta | ToolDelta]) -> str | None:
        """Another call, the end of all, or text after all."""
        trimmed = text.lstrip()
        if trimmed.startswith(_BEGIN):
            self._enter(_State.HEAD, lead=self._lead + text[: len(text) - len(trimmed)] + _BEGIN)
            return trimmed[len(_BEGIN) :]
        if trimmed.startswith(_ALL_END) and not self._lead:
            self._text.call_ended("")
            self._enter(_State.TEXT)
            return trimmed[len(_ALL_END) :]
        if _BEGIN.startswith(trimmed) or _ALL_END.startswith(trimmed):
            self._buffer = text
            return None
        return self._was_text(self._lead, text, deltas)

    def _in_head(self, text: str, deltas: list[TextDelta | ToolDelta]) -> str | None:
        for position, character in enumerate(text, 1):
            self._buffer += character
            if character == "{":
                match = _HEAD.fullmatch(self._buffer)
                if match is None:
                    break
                name = match["fenced"] or match["bare"]
                self._scanner = JsonScanner()
                self._scanner.push(character)
                deltas.append(self._calls.begin(name, character))
                self._enter(_State.ARGUMENTS)
                return text[position:]
            if len(self._buffer) > _MOST_HEAD or self._buffer.endswith((_END, _ALL_END, _BEGIN)):
                break
        else:
            return None
        return self._was_text(self._lead, self._buffer + text[position:], deltas)

    def _in_arguments(self, text: str, deltas: list[TextDelta | ToolDelta]) -> str | None:
        written = []
        rest = None
        for position, character in enumerate(text, 1):
            shown = in_json(character) if self._scanner.in_string else character
            step = self._scanner.push(character)
            if step is Step.BAD:
                self._text.call_ended("")
                self._enter(_State.TEXT)
                rest = text[position - 1 :]
                break
            written.append(shown)
            if step is Step.DONE:
                self._enter(_State.CLOSING)
                rest = text[position:]
                break
        if written:
            deltas.append(self._calls.more("".join(written)))
        return rest

    def _close(self, text: str) -> str | None:
        """Leave out the fence and the end marker; without them, what follows the call is text."""
        trimmed = text.lstrip()
        if trimmed.startswith(_FENCE):
            trimmed = trimmed[len(_FENCE) :].lstrip()
        elif _FENCE.startswith(trimmed):
            self._buffer = text
            return None
        if trimmed.startswith(_END):
            self._enter(_State.BETWEEN)
            return trimmed[len(_END) :]
        if _END.startswith(trimmed):
            self._buffer = text
            return None
        self._text.call_ended("")
        self._enter(_State.TEXT)
        return text

    def _was_text(self, shown: str, rest: str, deltas: list[TextDelta | ToolDelta]) -> str:
        """What began with markers is no call; after a call, it is text behind it."""
        if shown:
            deltas += self._text.was_text(shown, "")
        else:
            self._text.call_ended("")
        self._enter(_State.TEXT)
        return rest

    def _enter(self, state: _State, *, lead: str = "") -> None:
        self._state, self._buffer, self._lead = state, "", lead
