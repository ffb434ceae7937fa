"""`CallReader`: reads a call written as a JSON object, ``{"name": ..., "arguments": {...}}``, while it is generated.

    {"name": "f", "arguments": {"x": 1}}
    ╰──── header ────────────╯╰ streamed ╯

As soon as the name is known and the arguments have begun, the call is *committed*: its arguments are passed on as they
come, and what follows cannot take it back. Until then nothing is given away, so that what turns out to be no call can
come out as the text that it was.
"""

from __future__ import annotations

import json
from enum import Enum, auto

from vcore_model_zoo.chat_formats.json_scanner import JsonScanner, Step

__all__ = ["CallReader", "CallState", "in_json"]

_WHITESPACE = " \t\n\r"
_ARGUMENTS = ("arguments", "parameters")
_OTHER_KEYS = ("name", "type", "id", "index")
"""What else may stand in a call; another key shows that it is none."""


class CallState(Enum):
    """How far a call is."""

    OPEN = auto()
    """It goes on."""
    DONE = auto()
    """The object has ended and is a call."""
    BAD = auto()
    """It is no call, or none any more."""


class _Expect(Enum):
    OPENING = auto()
    KEY = auto()
    KEY_TEXT = auto()
    COLON = auto()
    VALUE = auto()
    COMMA_OR_END = auto()


class CallReader:
    """Reads one object. Feed it characters until its state is not `CallState.OPEN`."""

    __slots__ = (
        "_arguments", "_begun", "_expect", "_has_arguments", "_key", "_raw", "_scanner", "_streaming", "_told",
        "_value", "name",
    )  # fmt: skip

    def __init__(self) -> None:
        self.name: str | None = None
        """The function's name, once it is known."""
        self._expect = _Expect.OPENING
        self._raw: list[str] = []
        self._told = 0
        """How many characters the name and the arguments of a committed call stand for."""
        self._scanner = JsonScanner()
        self._key = ""
        self._value: list[str] = []
        self._begun = False
        """Whether the value has more than white space."""
        self._arguments: list[str] = []
        self._has_arguments = False
        self._streaming = False
        """Whether the value is the arguments."""

    @property
    def committed(self) -> bool:
        """Whether the name is known and the arguments have begun."""
        return self.name is not None and self._has_arguments

    @property
    def leftover(self) -> str:
        """What was fed and is not told by the name and the arguments: all of it, if the call is not committed."""
        return "".join(self._raw[self._told :] if self.committed else self._raw)

    def take_arguments(self) -> str:
        """What was read of the arguments of a committed call since the last time."""
        taken = "".join(self._arguments)
        self._arguments.clear()
        return taken

    def read(self, text: str) -> tuple[CallState, str]:
        """Feed `text` until the call ends.

        Returns:
            How far the call is, and what of `text` is left once it has ended.
        """
        for position, character in enumerate(text, 1):
            state = self.push(character)
            if state is not CallState.OPEN:
                return state, text[position:]
        return CallState.OPEN, ""

    def push(self, character: str) -> CallState:
        """Take one character."""
        self._raw.append(character)
        was_committed = self.committed
        state = self._push(character)
        told = state is CallState.DONE or self._streaming or not was_committed
        if state is not CallState.BAD and self.committed and told:
            self._told = len(self._raw)
        return state

    def _push(self, character: str) -> CallState:
        expect = self._expect
        if expect is _Expect.VALUE:
            return self._in_value(character)
        if expect is _Expect.KEY_TEXT:
            return self._in_key(character)
        if character in _WHITESPACE:
            return CallState.OPEN
        if expect is _Expect.OPENING and character == "{":
            self._expect = _Expect.KEY
        elif expect is _Expect.KEY and character == '"':
            self._begin_value(_Expect.KEY_TEXT)
            return self._in_key(character)
        elif expect is _Expect.COLON and character == ":":
            self._begin_value(_Expect.VALUE)
        elif expect is _Expect.COMMA_OR_END and character == ",":
            self._expect = _Expect.KEY
        elif expect is _Expect.COMMA_OR_END and character == "}":
            return self._end()
        else:
            return CallState.BAD
        return CallState.OPEN

    def _begin_value(self, expect: _Expect) -> None:
        self._scanner, self._value, self._begun, self._expect = JsonScanner(), [], False, expect

    def _in_key(self, character: str) -> CallState:
        self._value.append(character)
        step = self._scanner.push(character)
        if step is Step.BAD:
            return CallState.BAD
        if step is Step.DONE:
            self._key = json.loads("".join(self._value), strict=False)
            self._expect = _Expect.COLON
            if self._key not in (*_ARGUMENTS, *_OTHER_KEYS):
                return CallState.BAD
        return CallState.OPEN

    def _in_value(self, character: str) -> CallState:
        written = in_json(character) if self._scanner.in_string else character
        step = self._scanner.push(character)
        if step is Step.BAD:
            return CallState.BAD
        if not self._begun and character not in _WHITESPACE:
            self._begun = True
            if character == "{" and self._key in _ARGUMENTS and not self._has_arguments:
                self._has_arguments = self._streaming = True
        if step is Step.PAST:  # a number, which is of no use here
            state = self._after_value()
            return self._push(character) if state is CallState.OPEN else state
        if not self._streaming:
            self._value.append(written)
        elif self._begun:
            self._arguments.append(written)
        return self._after_value() if step is Step.DONE else CallState.OPEN

    def _after_value(self) -> CallState:
        self._expect = _Expect.COMMA_OR_END
        if self._streaming:
            self._streaming = False
            self._told = len(self._raw)
            return CallState.OPEN
        text = "".join(self._value).strip(_WHITESPACE)
        if self._key == "name" and self.name is None:
            self.name = _name(text)
            return CallState.BAD if self.name is None else CallState.OPEN
        if self._key in _ARGUMENTS and not self._has_arguments:
            arguments = _arguments(text)
            if arguments is None:
                return CallState.BAD
            self._arguments.append(arguments)
            self._has_arguments = True
        return CallState.OPEN

    def _end(self) -> CallState:
        if self.name is None:
            return CallState.BAD
        if not self._has_arguments:
            self._arguments.append("{}")
            self._has_arguments = True
        return CallState.DONE


def in_json(character: str) -> str:
    """A character of a string as JSON has it: control characters are escaped."""
    return json.dumps(character)[1:-1] if character < " " else character


def _name(text: str) -> str | None:
    """A function's name out of JSON text; None if it is none."""
    if not text.startswith('"'):
        return None
    name: str = json.loads(text)
    return name if name and _is_text(name) else None


def _arguments(text: str) -> str | None:
    """Arguments that are no object: JSON of an object in a string, or null for none. None if they are neither."""
    if text == "null":
        return "{}"
    if not text.startswith('"'):
        return None
    inner: str = json.loads(text) or "{}"
    try:
        parsed = json.loads(inner)
    except (ValueError, RecursionError):
        return None
    return inner if isinstance(parsed, dict) and _is_text(inner) else None


def _is_text(text: str) -> bool:
    """Whether it can be encoded: an escape in JSON may stand for half of a character."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
