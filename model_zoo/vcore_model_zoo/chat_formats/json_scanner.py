"""`JsonScanner`: finds where a JSON value ends, one character at a time, and that it is no JSON as soon as that shows.

The grammar is RFC 8259's, with one exception: control characters may stand in strings, as models write them.
"""

from __future__ import annotations

import re
from enum import Enum, auto

__all__ = ["JsonScanner", "Step"]

_WHITESPACE = " \t\n\r"
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NUMBER_CHARACTERS = "+-.0123456789eE"
_LITERALS = {"t": "true", "f": "false", "n": "null"}


class Step(Enum):
    """What a character did."""

    MORE = auto()
    """It belongs to the value, which goes on."""
    DONE = auto()
    """It is the last of the value."""
    PAST = auto()
    """The value, a number, ended before it; it is not part of the value."""
    BAD = auto()
    """No JSON value begins with what has been seen and this character."""


class _Expect(Enum):
    VALUE = auto()
    VALUE_OR_END = auto()
    KEY = auto()
    KEY_OR_END = auto()
    COLON = auto()
    COMMA_OR_END = auto()
    STRING = auto()
    ESCAPE = auto()
    UNICODE = auto()
    NUMBER = auto()
    LITERAL = auto()


class JsonScanner:
    """Scans one value. White space before it belongs to it."""

    __slots__ = ("_expect", "_hex_left", "_in_key", "_open", "_word")

    def __init__(self) -> None:
        self._expect = _Expect.VALUE
        self._open: list[str] = []
        """Objects and arrays that are open, by their closing character."""
        self._word = ""
        """What has been seen of a number or a literal."""
        self._in_key = False
        self._hex_left = 0

    @property
    def in_string(self) -> bool:
        """Whether the next character stands in a string; a control character does not belong there by the letter."""
        return self._expect is _Expect.STRING

    def push(self, character: str) -> Step:
        """Take one character. After anything but `Step.MORE` the scanner is spent."""
        expect = self._expect
        if expect is _Expect.STRING:
            return self._string(character)
        if expect is _Expect.ESCAPE:
            return self._escape(character)
        if expect is _Expect.UNICODE:
            return self._unicode(character)
        if expect is _Expect.NUMBER:
            return self._number(character)
        if expect is _Expect.LITERAL:
            return self._literal(character)
        return Step.MORE if character in _WHITESPACE else self._structure(character)

    def _structure(self, character: str) -> Step:
        expect = self._expect
        may_end = expect in (_Expect.VALUE_OR_END, _Expect.KEY_OR_END, _Expect.COMMA_OR_END)
        if may_end and character == self._open[-1]:
            self._open.pop()
            return self._ended()
        if expect in (_Expect.VALUE, _Expect.VALUE_OR_END):
            return self._value(character)
        if expect in (_Expect.KEY, _Expect.KEY_OR_END) and character == '"':
            self._in_key = True
            self._expect = _Expect.STRING
        elif expect is _Expect.COLON and character == ":":
            self._expect = _Expect.VALUE
        elif expect is _Expect.COMMA_OR_END and character == ",":
            self._expect = _Expect.KEY if self._open[-1] == "}" else _Expect.VALUE
        else:
            return Step.BAD
        return Step.MORE

    def _value(self, character: str) -> Step:
        if character == "{":
            self._open.append("}")
            self._expect = _Expect.KEY_OR_END
        elif character == "[":
            self._open.append("]")
            self._expect = _Expect.VALUE_OR_END
        elif character == '"':
            self._in_key = False
            self._expect = _Expect.STRING
        elif character in _LITERALS:
            self._word, self._expect = character, _Expect.LITERAL
        elif character in "-0123456789":
            self._word, self._expect = character, _Expect.NUMBER
        else:
            return Step.BAD
        return Step.MORE

    def _string(self, character: str) -> Step:
        if character == "\\":
            self._expect = _Expect.ESCAPE
        elif character == '"':
            if not self._in_key:
                return self._ended()
            self._expect = _Expect.COLON
        return Step.MORE

    def _escape(self, character: str) -> Step:
        if character == "u":
            self._expect, self._hex_left = _Expect.UNICODE, 4
        elif character in '"\\/bfnrt':
            self._expect = _Expect.STRING
        else:
            return Step.BAD
        return Step.MORE

    def _unicode(self, character: str) -> Step:
        if character not in "0123456789abcdefABCDEF":
            return Step.BAD
        self._hex_left -= 1
        if not self._hex_left:
            self._expect = _Expect.STRING
        return Step.MORE

    def _number(self, character: str) -> Step:
        if character in _NUMBER_CHARACTERS:
            self._word += character
            return Step.MORE
        if _NUMBER.fullmatch(self._word) is None:
            return Step.BAD
        if not self._open:
            return Step.PAST
        self._expect = _Expect.COMMA_OR_END
        return self.push(character)

    def _literal(self, character: str) -> Step:
        self._word += character
        whole = _LITERALS[self._word[0]]
        if self._word == whole:
            return self._ended()
        return Step.MORE if whole.startswith(self._word) else Step.BAD

    def _ended(self) -> Step:
        """A value has ended: the whole, or one in an object or array."""
        if not self._open:
            return Step.DONE
        self._expect = _Expect.COMMA_OR_END
        return Step.MORE
