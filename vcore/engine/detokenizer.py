"""`Detokenizer`: one sample's text, as its tokens arrive, up to a stop string.

It joins a tokenizer's incremental stream, which holds back incomplete characters, to a
`StopStringFinder`, which holds back what could become a stop string. It knows nothing of requests.
"""

from __future__ import annotations

from typing import Protocol

from vcore.engine.stop_strings import StopMatch, StopStringFinder, StopStrings
from vcore.sampling_params import SamplingParams

__all__ = ["Detokenizer", "TextStream"]


class TextStream(Protocol):
    """A tokenizer's incremental detokeniser of one sample."""

    def push(self, token_id: int) -> str:
        """The text that `token_id` completes; empty while a character is incomplete."""
        ...

    def flush(self) -> str:
        """What is left at the end, incomplete characters replaced."""
        ...


class Detokenizer:
    """Tokens in, text out. `text` only ever grows, but for what `take` takes, and never shows any part of a stop
    string that is cut off."""

    __slots__ = (
        "_closed",
        "_finder",
        "_include_stop",
        "_match",
        "_min_tokens",
        "_num_taken",
        "_num_tokens",
        "_stream",
        "_text",
    )

    def __init__(self, stream: TextStream, params: SamplingParams, stops: StopStrings | None = None) -> None:
        """Begin with no text.

        Args:
            stream: fresh; owned by this object from now on.
            params: gives the stop strings, `min_tokens` and `include_stop_str_in_output`.
            stops: the stop strings, if they are prepared already, as for other samples.
        """
        self._stream = stream
        self._finder = StopStringFinder(stops or StopStrings(params.stop)) if params.stop else None
        self._min_tokens = params.min_tokens
        self._include_stop = params.include_stop_str_in_output
        self._num_tokens = 0
        self._num_taken = 0
        self._text = ""  # without the first `_num_taken` characters
        self._match: StopMatch | None = None
        self._closed = False

    @property
    def stop(self) -> str | None:
        """The stop string that was found."""
        return None if self._match is None else self._match.stop

    @property
    def text(self) -> str:
        """All text that may be shown so far, and was not taken."""
        if self._match is not None:
            end = self._match.end if self._include_stop else self._match.start
            return self._text[: end - self._num_taken]
        if self._finder is None or self._closed or not self._finder.num_held:
            return self._text
        return self._text[: -self._finder.num_held]

    def take(self) -> str:
        """`text`, which is then forgotten: what is kept, and the cost of a token, stay small however long it gets."""
        text = self.text
        self._num_taken += len(text)
        self._text = self._text[len(text) :]
        return text

    def append(self, token_id: int) -> str | None:
        """Take the next token.

        A stop string counts only if the token that completes it comes after the first `min_tokens`.

        Returns:
            The stop string that it completes, after which no token may follow; or None.
        """
        self._num_tokens += 1
        piece = self._stream.push(token_id)
        if self._finder is None:
            self._text += piece
            return None
        return self._take(piece)

    def skip(self) -> None:
        """Count a token whose text is not shown: the one that ended the request."""
        self._num_tokens += 1

    def finish(self) -> str | None:
        """No token follows: show what was held back.

        Returns:
            The stop string that the rest completes, or None.
        """
        if self._closed or self._match is not None:
            return self.stop
        stop = self._take(self._stream.flush())
        self._closed = True
        return stop

    def _take(self, piece: str) -> str | None:
        if not piece:
            return None
        self._text += piece
        if self._finder is not None:
            self._match = self._finder.feed(piece, counts=self._num_tokens > self._min_tokens)
        return self.stop
