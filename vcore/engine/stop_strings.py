"""`StopStringFinder`: finds stop strings in text that arrives in pieces, and says how much of it may be shown.

It knows nothing of tokens. All stop strings share one automaton (A. Aho and M. Corasick, "Efficient string matching: an
aid to bibliographic search", CACM 18(6), 1975), whose state is the longest beginning of any of them that the text so
far ends with. So a character costs amortised constant time, however many stop strings there are, nothing is searched
twice, and the state says how much text must be held back.
"""

from __future__ import annotations

from collections import deque
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
    """Strings to look for, prepared once for all texts in which they are; never changed.

    States are numbers; 0 is that of a text which ends with the beginning of no string.
    """

    __slots__ = ("_children", "_shorter", "ends", "firsts", "held")

    def __init__(self, stops: Sequence[str]) -> None:
        """Prepare `stops`, none of them empty; it takes time by their characters."""
        self.firsts = frozenset(stop[0] for stop in stops)
        self._children: list[dict[str, int]] = [{}]
        self._shorter = [0]
        """Of each state: that of the next shorter beginning that the text ends with, too."""
        self.ends: list[str | None] = [None]
        """Of each state: the longest string that ends there."""
        self.held = [0]
        """Of each state: how many of the last characters may begin a string that goes on."""
        for stop in stops:
            self._add(stop)
        self._connect()

    def _add(self, stop: str) -> None:
        state = 0
        for char in stop:
            known = self._children[state].get(char)
            if known is None:
                known = self._children[state][char] = len(self._children)
                self._children.append({})
                self._shorter.append(0)
                self.ends.append(None)
                self.held.append(self.held[state] + 1)
            state = known
        self.ends[state] = stop

    def _connect(self) -> None:
        """From shorter beginnings to longer ones."""
        waiting = deque(self._children[0].values())
        while waiting:
            state = waiting.popleft()
            shorter = self._shorter[state]
            self.ends[state] = self.ends[state] or self.ends[shorter]
            for char, child in self._children[state].items():
                self._shorter[child] = self.next(shorter, char) if state else 0
                waiting.append(child)
            if not self._children[state]:
                self.held[state] = self.held[shorter]

    def next(self, state: int, char: str) -> int:
        """The state after one more character."""
        while (found := self._children[state].get(char)) is None and state:
            state = self._shorter[state]
        return found or 0


class StopStringFinder:
    """Looks for several strings in growing text.

    The match is the one that ends first; of several that end at the same character, the longest. So it
    does not depend on how the text was cut into pieces.
    """

    __slots__ = ("_length", "_state", "_stops")

    def __init__(self, stops: StopStrings) -> None:
        """Look for `stops` in a text that begins now."""
        self._stops = stops
        self._state = 0
        self._length = 0

    @property
    def num_held(self) -> int:
        """How many of the last characters could be the beginning of a stop string, and must not be shown yet."""
        return self._stops.held[self._state]

    def feed(self, piece: str, *, counts: bool = True) -> StopMatch | None:
        """Append `piece` and look for a stop string that ends in it.

        Args:
            piece: the next characters.
            counts: if False, a stop string that ends in this piece is passed over. One that only begins in
                it is found later.

        Returns:
            The match, after which nothing more should be fed, or None.
        """
        stops = self._stops
        if not self._state and stops.firsts.isdisjoint(piece):
            self._length += len(piece)
            return None
        for char in piece:
            self._length += 1
            self._state = stops.next(self._state, char)
            found = stops.ends[self._state]
            if found is not None and counts:
                return StopMatch(found, self._length - len(found), self._length)
        return None
