"""Calls as Hermes 2 Pro and Qwen write them: ``<tool_call>`` JSON ``</tool_call>``, any number, among text."""

from __future__ import annotations

import json
from collections.abc import Sequence

from vcore.interfaces.chat_format import ChatFormatContext, TextDelta, Tool, ToolDelta, ToolParser
from vcore.structured_output import StructuralTag, StructuredOutput, Tag
from vcore_model_zoo.chat_formats.call_deltas import CallDeltas
from vcore_model_zoo.chat_formats.call_reader import CallReader, CallState
from vcore_model_zoo.chat_formats.held_text import HeldText

__all__ = ["HermesToolParser", "object_schema"]

_BEGIN, _END = "<tool_call>", "</tool_call>"


class HermesToolParser(ToolParser):
    """Text, a call, its end, text, ..."""

    def __init__(self, *, options: None, context: ChatFormatContext) -> None:
        """Begin in text."""
        self._text = HeldText([_BEGIN])
        self._calls = CallDeltas()
        self._reader: CallReader | None = None
        self._closing: str | None = None
        """After a call: what may be its end marker."""

    def feed(self, text: str) -> list[TextDelta | ToolDelta]:
        """Text is held back while it may begin the marker; a call, until its name is known."""
        deltas: list[TextDelta | ToolDelta] = []
        rest: str | None = text
        while rest is not None:
            if self._reader is not None:
                rest = self._read(self._reader, rest, deltas)
            elif self._closing is not None:
                rest = self._close(self._closing + rest)
            else:
                self._text.add(rest)
                shown, marker, after = self._text.until_marker()
                deltas += shown
                rest = None if marker is None else after
                self._reader = None if marker is None else CallReader()
        return deltas

    def finish(self) -> list[TextDelta | ToolDelta]:
        """A call that has not begun its arguments is text; an end marker that was cut short is none."""
        if self._reader is not None:
            reader, self._reader = self._reader, None
            if not reader.committed:
                return [*self._text.was_text(_BEGIN + reader.leftover, "")]
            self._text.call_ended(reader.leftover)
        elif self._closing is not None:
            self._text.call_ended("")
        return [*self._text.finish()]

    def constraint(self, tools: Sequence[Tool], *, single: bool, required: bool) -> StructuredOutput:
        """Each call in its tags, the arguments by the tool's schema."""
        tags = [
            Tag(
                begin=f'{_BEGIN}\n{{"name": {json.dumps(tool.name)}, "arguments": ',
                json_schema=object_schema(tool),
                end=f"}}\n{_END}",
            )
            for tool in tools
        ]
        tag = StructuralTag(
            structures=tuple(tags), triggers=(_BEGIN,), required=required, separator="\n", most=1 if single else None
        )
        return StructuredOutput(structural_tag=tag)

    def _read(self, reader: CallReader, text: str, deltas: list[TextDelta | ToolDelta]) -> str | None:
        """Feed the call; what is left once it has ended."""
        state, rest = reader.read(text)
        deltas += self._calls.of(reader, ended=state is not CallState.OPEN)
        if state is CallState.OPEN:
            return None
        self._reader = None
        if state is CallState.DONE:
            self._closing = ""
            return rest
        if reader.committed:
            self._text.call_ended("")
        else:
            deltas += self._text.was_text(_BEGIN, "")
        return reader.leftover + rest

    def _close(self, text: str) -> str | None:
        """Leave out the end marker; without one, what follows the call is text."""
        trimmed = text.lstrip()
        if not trimmed.startswith(_END):
            if _END.startswith(trimmed):
                self._closing = text
                return None
            trimmed = _END + trimmed
        self._closing = None
        self._text.call_ended("")
        return trimmed[len(_END) :]


def object_schema(tool: Tool) -> str:
    """The JSON schema of a tool's arguments, which are an object, as text."""
    if isinstance(tool.parameters, bool):
        return '{"type": "object"}'
    return json.dumps({"type": "object", **tool.parameters}, ensure_ascii=False)
