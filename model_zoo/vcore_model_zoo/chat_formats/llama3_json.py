"""Calls as Llama 3.1 and 3.2 write them: the answer is ``{"name": ..., "parameters": {...}}``, several joined by ``;``.

The model may begin with the special token ``<|python_tag|>``, which is left out of the text by default; so an answer
that begins with such an object is a call, with or without the token. Anything else is text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from vcore.interfaces.chat_format import ChatFormatContext, TextDelta, Tool, ToolDelta, ToolParser
from vcore.structured_output import StructuralTag, StructuredOutput, Tag
from vcore_model_zoo.chat_formats.call_deltas import CallDeltas
from vcore_model_zoo.chat_formats.call_reader import CallReader, CallState
from vcore_model_zoo.chat_formats.held_text import HeldText
from vcore_model_zoo.chat_formats.hermes import object_schema

__all__ = ["Llama3JsonToolParser"]

_TAG = "<|python_tag|>"


class Llama3JsonToolParser(ToolParser):
    """A call at the beginning, after the tag, or after another call; then text."""

    def __init__(self, *, options: None, context: ChatFormatContext) -> None:
        """Begin where a call may begin."""
        self._text = HeldText([_TAG])
        self._calls = CallDeltas()
        self._reader: CallReader | None = None
        self._opening: str | None = ""
        """Where a call may begin: what has come so far, white space or a separator; None elsewhere."""
        self._lead = ""
        """What stood before the call, to be shown if it is none."""
        self._separates = False
        """Whether a call has just ended, so that a separator may come."""

    def feed(self, text: str) -> list[TextDelta | ToolDelta]:
        """A call is held back until its name is known."""
        deltas: list[TextDelta | ToolDelta] = []
        rest: str | None = text
        while rest is not None:
            if self._reader is not None:
                rest = self._read(self._reader, rest, deltas)
            elif self._opening is not None:
                rest = self._open(self._opening + rest, deltas)
            else:
                self._text.add(rest)
                shown, marker, after = self._text.until_marker()
                deltas += shown
                rest = None if marker is None else after
                if marker is not None:
                    self._opening, self._lead, self._separates = "", _TAG, False
        return deltas

    def finish(self) -> list[TextDelta | ToolDelta]:
        """A call that has not begun its arguments is text."""
        if self._reader is not None:
            reader, self._reader = self._reader, None
            if not reader.committed:
                return [*self._text.was_text(self._lead + reader.leftover, "")]
            self._text.call_ended(reader.leftover)
        elif self._opening is not None:
            if not self._separates:
                return [*self._text.was_text(self._lead + self._opening, "")]
            self._text.call_ended(self._opening)
        return [*self._text.finish()]

    def constraint(self, tools: Sequence[Tool], *, single: bool, required: bool) -> StructuredOutput | None:
        """Calls alone can be enforced; among text nothing marks their beginning."""
        if not required:
            return None
        tags = [
            Tag(begin=f'{{"name": {json.dumps(tool.name)}, "parameters": ', json_schema=object_schema(tool), end="}")
            for tool in tools
        ]
        tag = StructuralTag(structures=tuple(tags), required=True, separator="; ", most=1 if single else None)
        return StructuredOutput(structural_tag=tag)

    def _open(self, text: str, deltas: list[TextDelta | ToolDelta]) -> str | None:
        """See whether a call begins; what is left once that is known."""
        trimmed = text.lstrip()
        if self._separates and trimmed.startswith(";"):
            trimmed = trimmed[1:].lstrip()
        elif not self._separates and not self._lead and trimmed.startswith(_TAG):
            self._opening, self._lead = "", text[: len(text) - len(trimmed)] + _TAG
            return trimmed[len(_TAG) :]
        elif not self._separates and not self._lead and trimmed and _TAG.startswith(trimmed):
            trimmed = ""  # it may become the tag
        if not trimmed:
            self._opening = text
            return None
        self._opening = None
        if trimmed.startswith("{"):
            self._lead += text[: len(text) - len(trimmed)]
            self._reader = CallReader()
            return trimmed
        if self._separates:
            self._text.call_ended("")
            return text
        deltas += self._text.was_text(self._lead, "")
        return text

    def _read(self, reader: CallReader, text: str, deltas: list[TextDelta | ToolDelta]) -> str | None:
        """Feed the call; what is left once it has ended."""
        state, rest = reader.read(text)
        deltas += self._calls.of(reader, ended=state is not CallState.OPEN)
        if state is CallState.OPEN:
            return None
        self._reader = None
        if state is CallState.DONE:
            self._opening, self._lead, self._separates = "", "", True
            return rest
        if reader.committed:
            self._text.call_ended("")
        else:
            deltas += self._text.was_text(self._lead, "")
        return reader.leftover + rest
