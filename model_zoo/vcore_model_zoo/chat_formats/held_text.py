"""`HeldText`: the visible text of an answer with calls in it, held back where it may turn out to be a call's beginning.

White space right before and right after a call belongs to the call.
"""

from __future__ import annotations

from collections.abc import Sequence

from vcore.interfaces.chat_format import TextDelta, held_back

__all__ = ["HeldText"]


class HeldText:
    """Text up to the next marker."""

    __slots__ = ("_after_call", "_buffer", "_markers", "_space")

    def __init__(self, markers: Sequence[str]) -> None:
        """Look for `markers`."""
        self._markers = tuple(markers)
        self._buffer = ""
        self._space = ""
        """White space that was left out before a marker, in case that no call comes of it."""
        self._after_call = False

    def add(self, text: str) -> None:
        """More text."""
        self._buffer += text

    def call_ended(self, rest: str) -> None:
        """A call has ended, and `rest` follows it."""
        self._after_call, self._buffer, self._space = True, rest, ""

    def was_text(self, text: str, rest: str) -> list[TextDelta]:
        """What began with a marker is no call but `text`, and `rest` follows, in which there may be markers."""
        shown = self._space + text
        self._space, self._buffer, self._after_call = "", rest, False
        return [TextDelta(shown)] if shown else []

    def until_marker(self) -> tuple[list[TextDelta], str | None, str]:
        """What can be shown, the first marker, and what follows it; ``(..., None, "")`` if there is none yet."""
        if self._after_call:
            self._buffer = self._buffer.lstrip()
            self._after_call = not self._buffer
        found = [(at, marker) for marker in self._markers if (at := self._buffer.find(marker)) >= 0]
        if found:
            # Of two that begin at the same place, the longer.
            at, marker = min(found, key=lambda one: (one[0], -len(one[1])))
            shown, rest = self._buffer[:at], self._buffer[at + len(marker) :]
            visible = shown.rstrip()
            self._space, self._buffer = shown[len(visible) :], ""
            return ([TextDelta(visible)] if visible else []), marker, rest
        settled = self._buffer[: len(self._buffer) - held_back(self._buffer, self._markers)].rstrip()
        self._buffer = self._buffer[len(settled) :]
        return ([TextDelta(settled)] if settled else []), None, ""

    def finish(self) -> list[TextDelta]:
        """All that is held back; white space after a call is not shown."""
        rest = self._buffer.lstrip() if self._after_call else self._buffer
        self._buffer = ""
        return [TextDelta(rest)] if rest else []
