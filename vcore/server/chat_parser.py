"""`ChatParser`: the reasoning and the tool calls in the text of one choice, by the two parsers of the model's format.

    text ──► ReasoningParser ──► ReasoningDelta
                    │
                    └── text ──► ToolParser ──► TextDelta, ToolDelta

Streamed and whole answers go through the same object: whole is one `feed` and one `finish`.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from vcore.interfaces.chat_format import ReasoningDelta, ReasoningParser, TextDelta, ToolDelta, ToolParser

__all__ = ["ChatAnswer", "ChatDelta", "ChatParser", "ToolCall", "parse_answer"]

logger = logging.getLogger(__name__)

ChatDelta = ReasoningDelta | TextDelta | ToolDelta


@dataclass(slots=True)
class ToolCall:
    """A whole call."""

    id: str
    name: str
    arguments: str
    """JSON, as the model wrote it."""


@dataclass(slots=True)
class ChatAnswer:
    """A whole answer."""

    content: str | None
    """None if there is no text."""
    reasoning: str | None
    """None if there is none."""
    tool_calls: list[ToolCall] = field(default_factory=list)

    @classmethod
    def of(cls, deltas: Iterable[ChatDelta]) -> ChatAnswer:
        """The answer whose pieces are `deltas`."""
        text: list[str] = []
        reasoning: list[str] = []
        calls: dict[int, ToolCall] = {}
        for delta in deltas:
            if isinstance(delta, TextDelta):
                text.append(delta.text)
            elif isinstance(delta, ReasoningDelta):
                reasoning.append(delta.text)
            else:
                call = calls.setdefault(delta.index, ToolCall("", "", ""))
                call.id = delta.id or call.id
                call.name = delta.name or call.name
                call.arguments += delta.arguments
        return cls("".join(text) or None, "".join(reasoning) or None, [calls[index] for index in sorted(calls)])


class ChatParser:
    """Parses one choice of one answer. A parser that raises is named in the log, and what follows is plain text."""

    __slots__ = ("_names", "_num_calls", "_reasoning", "_tools")

    def __init__(
        self, reasoning: ReasoningParser | None = None, tools: ToolParser | None = None, *, prompt: str = ""
    ) -> None:
        """Join two parsers, both fresh.

        Args:
            reasoning: None if reasoning stays text.
            tools: None if calls stay text.
            prompt: the text that the chat template made; a template may have begun the reasoning.
        """
        self._reasoning = reasoning
        self._tools = tools
        self._num_calls = 0
        if reasoning is not None:
            try:
                reasoning.starts_in_reasoning(prompt)
            except Exception:
                self._reasoning = None
                logger.exception("the reasoning parser %r raised; reasoning stays text", type(reasoning).__name__)

    @property
    def num_calls(self) -> int:
        """How many tool calls have begun; if any has, the answer's finish reason ``stop`` is ``tool_calls``."""
        return self._num_calls

    def feed(self, text: str) -> list[ChatDelta]:
        """What the next piece of text settles, in order, adjacent pieces of the same sort joined."""
        deltas: list[ChatDelta] = []
        for delta in self._reason(text):
            deltas += self._call(delta.text) if isinstance(delta, TextDelta) else [delta]
        return self._told(deltas)

    def finish(self) -> list[ChatDelta]:
        """The answer has ended: what was held back."""
        deltas: list[ChatDelta] = []
        for delta in self._reason(None):
            deltas += self._call(delta.text) if isinstance(delta, TextDelta) else [delta]
        deltas += self._call(None)
        return self._told(deltas)

    def _reason(self, text: str | None) -> Sequence[ReasoningDelta | TextDelta]:
        """Through the reasoning parser; None ends it."""
        if self._reasoning is None:
            return [TextDelta(text)] if text else []
        try:
            return self._reasoning.finish() if text is None else self._reasoning.feed(text)
        except Exception:
            logger.exception("the reasoning parser %r raised; what follows is text", type(self._reasoning).__name__)
            self._reasoning = None
            return [TextDelta(text)] if text else []

    def _call(self, text: str | None) -> Sequence[TextDelta | ToolDelta]:
        """Through the tool parser; None ends it."""
        if self._tools is None:
            return [TextDelta(text)] if text else []
        try:
            return self._tools.finish() if text is None else self._tools.feed(text)
        except Exception:
            logger.exception("the tool parser %r raised; what follows is text", type(self._tools).__name__)
            self._tools = None
            return [TextDelta(text)] if text else []

    def _told(self, deltas: list[ChatDelta]) -> list[ChatDelta]:
        """The same with ids on new calls, and pieces that belong together joined."""
        told: list[ChatDelta] = []
        for delta in deltas:
            if isinstance(delta, ToolDelta) and delta.name is not None:
                self._num_calls += 1
                delta = replace(delta, id=delta.id or f"call_{uuid.uuid4().hex[:24]}")
            joined = _joined(told[-1], delta) if told else None
            if joined is None:
                told.append(delta)
            else:
                told[-1] = joined
        return told


def parse_answer(parser: ChatParser, text: str) -> ChatAnswer:
    """A whole answer, through the code that streams."""
    return ChatAnswer.of([*parser.feed(text), *parser.finish()])


def _joined(first: ChatDelta, second: ChatDelta) -> ChatDelta | None:
    """The two as one, if they go on with each other."""
    if isinstance(first, TextDelta) and isinstance(second, TextDelta):
        return TextDelta(first.text + second.text)
    if isinstance(first, ReasoningDelta) and isinstance(second, ReasoningDelta):
        return ReasoningDelta(first.text + second.text)
    if not isinstance(first, ToolDelta) or not isinstance(second, ToolDelta):
        return None
    if first.index != second.index or second.name is not None:
        return None
    return replace(first, arguments=first.arguments + second.arguments)
