"""What the parsers of a model's chat format implement: they find reasoning and tool calls in its text.

A parser is fed the text of one answer in pieces, as they are generated, and gives deltas. An answer that is
known whole goes through the same two methods, so streamed and whole answers are equal by construction; all a
parser must see to is that its result does not depend on where the text was cut.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vcore.structured_output import StructuredOutput
    from vcore.tokenizer import Tokenizer

__all__ = [
    "ChatFormatContext",
    "ReasoningDelta",
    "ReasoningParser",
    "TextDelta",
    "Tool",
    "ToolDelta",
    "ToolParser",
    "held_back",
]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer's visible text."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of what the model thought before it answered."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolDelta:
    """A piece of a tool call. The first piece has the name; the pieces of `arguments`, joined, are its JSON."""

    index: int
    """Of the call in the answer: 0, 1, ..."""
    name: str | None = None
    """In the first piece alone."""
    arguments: str = ""
    id: str | None = None
    """In the first piece, if the format carries one; otherwise the server makes one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the model may call."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | bool = True
    """A JSON schema of the arguments; True: any."""
    strict: bool = False
    """Whether calls must keep to `parameters`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFormatContext:
    """What a parser is told when it is made."""

    tools: tuple[Tool, ...] = ()
    chat_template: str | None = None
    """The model's template, in case that the format has variants."""
    tokenizer: Tokenizer | None = None


class ToolParser(ABC):
    """Finds tool calls in one answer (API 1.0).

    The plugin's `load` is called with ``options`` and ``context`` (a `ChatFormatContext`), once for each choice of
    each answer. A parser never raises, whatever the text: a malformed call is text. Text is not lost, but for the
    syntax of calls and white space beside them.
    """

    keeps_special_tokens: bool = False
    """Whether the format's markers are special tokens, which must then not be left out of the text."""

    @abstractmethod
    def feed(self, text: str) -> list[TextDelta | ToolDelta]:
        """What `text`, the next piece of the answer, settles. What may be the start of a call is held back."""

    @abstractmethod
    def finish(self) -> list[TextDelta | ToolDelta]:
        """The answer has ended: the rest. Nothing is fed afterwards."""

    def constraint(self, tools: Sequence[Tool], *, single: bool, required: bool) -> StructuredOutput | None:
        """The form of an answer that calls `tools` in this format; None if the format cannot be enforced.

        Args:
            tools: those that may be called.
            single: whether there is at most one call.
            required: whether the answer is calls alone, at least one. Otherwise text may stand around calls, and the
                form sees to it that calls are well-formed.
        """
        return None


class ReasoningParser(ABC):
    """Tells reasoning from the answer (API 1.0).

    The plugin's `load` is called with ``options`` and ``context`` (a `ChatFormatContext`), once for each choice of
    each answer. A parser never raises, and loses no text but its markers and white space beside them.
    """

    keeps_special_tokens: bool = False
    """As in `ToolParser`."""
    end_marker: str | None = None
    """The text that ends reasoning, such as ``</think>``. A form that is demanded of the answer begins after it."""

    def starts_in_reasoning(self, prompt: str) -> bool:
        """Whether an answer to `prompt`, the text that the chat template made, begins with reasoning. Called once,
        before anything is fed; the parser may remember it."""
        return False

    @abstractmethod
    def feed(self, text: str) -> list[ReasoningDelta | TextDelta]:
        """What `text`, the next piece of the answer, settles. What may be the start of a marker is held back."""

    @abstractmethod
    def finish(self) -> list[ReasoningDelta | TextDelta]:
        """The answer has ended: the rest. Nothing is fed afterwards."""


def held_back(text: str, markers: Sequence[str]) -> int:
    """How many of the last characters of `text` may be the start of a marker: the longest suffix that begins one.

    A whole marker does not count; look for those first.
    """
    longest = min(len(text), max(map(len, markers), default=0))
    for size in range(longest, 0, -1):
        suffix = text[-size:]
        if any(len(marker) > size and marker.startswith(suffix) for marker in markers):
            return size
    return 0
