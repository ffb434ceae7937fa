"""`StopStringFinder`: finds stop strings in text that arrives in pieces, and says how much of it may be shown.

It knows nothing of tokens. Each stop string has a Knuth-Morris-Pratt automaton (Knuth, Morris, Pratt 1977,
"Fast pattern matching in strings"), whose state is the length of the longest beginning of the string that
the text so far ends with. So a character costs amortised constant time a stop string, nothing is searched
twice, and the largest state is exactly how much text must be held back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["StopMatch", "StopStringFinder", "StopStrings"]


@dataclass(frozen=True, slots=True)
class StopMatch:
    """A stop string that was found. Offsets count characters from the beginning of all text fed so far."""

    stop: str
    start: int
    end: int


class StopStrings:
    """Strings to look for, prepared once for all texts in which they are; never changed."""

    __slots__ = ("failures", "firsts", "strings")

    def __init__(self, stops: Sequence[str]) -> None:
        """Prepare `stops`, none of them empty; it takes time by their characters."""
        # Longest first, so that the first to complete at a character is the one to report.
        self.strings = tuple(sorted(dict.fromkeys(stops), key=len, reverse=True))
        self.failures = tuple(_failure_table(stop) for stop in self.strings)
        self.firsts = frozenset(stop[0] for stop in self.strings)


class StopStringFinder:
    """Looks for several strings in growing text.

    The match is the one that ends first; of several that end at the same character, the longest. So it
    does not depend on how the text was cut into pieces.
    """

    __slots__ = ("_failures", "_firsts", "_length", "_states", "_stops")

    def __init__(self, stops: StopStrings) -> None:
        """Look for `stops` in a text that begins now."""
        self._stops, self._failures, self._firsts = stops.strings, stops.failures, stops.firsts
        self._states = [0] * len(self._stops)
        self._length = 0

    @property
    def num_held(self) -> int:
        """How many of the last characters could be the beginning of a stop string, and must not be shown yet."""
        return max(self._states, default=0)

    def feed(self, piece: str, *, counts: bool = True) -> StopMatch | None:
        """Append `piece` and look for a stop string that ends in it.

        Args:
            piece: the next characters.
            counts: if False, a stop string that ends in this piece is passed over. One that only begins in
                it is found later.

        Returns:
            The match, after which nothing more should be fed, or None.
        """
        if not any(self._states) and self._firsts.isdisjoint(piece):
            self._length += len(piece)
            return None
        for char in piece:
            self._length += 1
            found = self._advance(char)
            if found is not None and counts:
                return StopMatch(found, self._length - len(found), self._length)
        return None

    def _advance(self, char: str) -> str | None:
        """Move every automaton on by one character; the longest stop string that ends there."""
        found: str | None = None
        for i, stop in enumerate(self._stops):
            failure, state = self._failures[i], self._states[i]
            while state and stop[state] != char:
                state = failure[state - 1]
            if stop[state] == char:
                state += 1
            if state == len(stop):
                found = found or stop
                state = failure[state - 1]
            self._states[i] = state
        return found


def _failure_table(text: str) -> list[int]:
    """For each prefix of `text`, the length of its longest proper prefix that is also its suffix."""
    table = [0] * len(text)
    length = 0
    for i in range(1, len(text)):
        while length and text[i] != text[length]:
            length = table[length - 1]
        if text[i] == text[length]:
            length += 1
        table[i] = length
    return table
