"""Reasoning between ``<think>`` and ``</think>``, as DeepSeek R1 and Qwen3 write it, before the answer."""

from __future__ import annotations

from enum import Enum, auto

from vcore.interfaces.chat_format import ChatFormatContext, ReasoningDelta, ReasoningParser, TextDelta, held_back

__all__ = ["DeepSeekR1ReasoningParser", "Qwen3ReasoningParser"]

_BEGIN, _END = "<think>", "</think>"


class _State(Enum):
    START = auto()
    """Nothing but white space and perhaps part of the first marker has come."""
    REASONING = auto()
    ANSWER_START = auto()
    """After the last marker; white space is left out."""
    ANSWER = auto()


class Qwen3ReasoningParser(ReasoningParser):
    """There is reasoning if the prompt ends with ``<think>``, or the answer begins with it."""

    end_marker = _END

    def __init__(self, *, options: None, context: ChatFormatContext) -> None:
        """Begin before anything has come."""
        self._state = _State.START
        self._in_reasoning = False
        self._is_first = True
        """Whether none of the reasoning was shown, so that white space is left out."""
        self._buffer = ""

    def starts_in_reasoning(self, prompt: str) -> bool:
        """Whether the template has begun the reasoning."""
        self._in_reasoning = prompt.rstrip().endswith(_BEGIN)
        return self._in_reasoning

    def feed(self, text: str) -> list[ReasoningDelta | TextDelta]:
        """The last marker, and white space before it, are held back."""
        self._buffer += text
        deltas: list[ReasoningDelta | TextDelta] = []
        if self._state is _State.START:
            self._start()
        if self._state is _State.REASONING:
            deltas += self._reason()
        if self._state is _State.ANSWER_START:
            self._buffer = self._buffer.lstrip()
            if self._buffer:
                self._state = _State.ANSWER
        if self._state is _State.ANSWER and self._buffer:
            deltas.append(TextDelta(self._buffer))
            self._buffer = ""
        return deltas

    def finish(self) -> list[ReasoningDelta | TextDelta]:
        """Reasoning that was cut off is reasoning."""
        rest, self._buffer = self._buffer, ""
        if self._state is _State.REASONING or (self._state is _State.START and self._in_reasoning):
            rest = rest.lstrip() if self._is_first else rest
            return [ReasoningDelta(rest)] if rest else []
        return [TextDelta(rest)] if rest and self._state is _State.START else []

    def _start(self) -> None:
        trimmed = self._buffer.lstrip()
        if trimmed.startswith(_BEGIN):
            self._state, self._buffer = _State.REASONING, trimmed[len(_BEGIN) :]
        elif not _BEGIN.startswith(trimmed):
            self._state = _State.REASONING if self._in_reasoning else _State.ANSWER

    def _reason(self) -> list[ReasoningDelta | TextDelta]:
        before, marker, after = self._buffer.partition(_END)
        if marker:
            self._state, self._buffer = _State.ANSWER_START, after
        else:
            before = before[: len(before) - held_back(before, (_END,))]
        shown = before.rstrip()
        if not marker:
            self._buffer = self._buffer[len(shown) :]
        if self._is_first:
            shown = shown.lstrip()
            self._is_first = not shown
        return [ReasoningDelta(shown)] if shown else []


class DeepSeekR1ReasoningParser(Qwen3ReasoningParser):
    """There is reasoning unless the prompt has ended it: the first templates left ``<think>`` to the model, which may
    leave it out."""

    def starts_in_reasoning(self, prompt: str) -> bool:
        """Whether the template has not closed the reasoning."""
        self._in_reasoning = not prompt.rstrip().endswith(_END)
        return self._in_reasoning
