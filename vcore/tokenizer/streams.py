"""Incremental detokenising: token ids in, one at a time; text out, whole characters only.

The pieces of a stream, joined, are exactly what decoding all of its ids at once gives. Two ways lead there:

- `ByteLevelStream`: in a byte-level vocabulary the text is the UTF-8 of the tokens' bytes, so an incremental
  UTF-8 decoder is all it takes: constant work a token, and bytes that can no longer become a character are
  shown (as U+FFFD) at once.
- `WindowStream`: any other decoder is asked for the text of a few tokens, with and without the newest ones;
  the difference is new text. Tokens of a run of byte-fallback tokens wait for its end, because the decoder
  judges such a run as a whole.

`tokenizers.decoders.DecodeStream` does much the same as the second; it is not used because it has no way to
give out at the end what it kept back, shows byte-fallback characters before their run has ended, and raises on
ids that do not fit 32 bits.
"""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Callable

__all__ = ["ByteLevelStream", "TokenStream", "WindowStream"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_Utf8Decoder = codecs.getincrementaldecoder("utf-8")


class TokenStream(ABC):
    """The incremental detokeniser of one output. It never raises, whatever ids it gets."""

    __slots__ = ()

    @abstractmethod
    def push(self, token_id: int) -> str:
        """The text that `token_id` completes; empty while a character is incomplete."""

    @abstractmethod
    def flush(self) -> str:
        """What is left at the end, with U+FFFD for incomplete characters. Nothing may be pushed afterwards."""


class ByteLevelStream(TokenStream):
    """For byte-level vocabularies."""

    __slots__ = ("_bytes_of", "_decoder", "_is_incomplete")

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        """Begin.

        Args:
            bytes_of: the bytes of a token id; none for ids that are not shown.
        """
        self._bytes_of = bytes_of
        self._decoder = _Utf8Decoder(errors="replace")
        self._is_incomplete = False
        """Whether the decoder holds part of a character."""

    def push(self, token_id: int) -> str:
        data = self._bytes_of(token_id)
        if data.isascii() and not self._is_incomplete:
            return data.decode("ascii")  # nearly every token, at a tenth of the decoder's cost
        text = self._decoder.decode(data)
        self._is_incomplete = bool(self._decoder.getstate()[0])
        return text

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)


class WindowStream(TokenStream):
    """For any other decoder.

        ids:  [ shown before ... | context | pending ... ]
                                 ^ the window begins here

    The context, the tokens of the last piece that was shown, keeps the window from looking like the start of
    a text, where many decoders drop a space. It grows with the pending tokens only.
    """

    __slots__ = ("_context", "_decode", "_is_byte", "_is_visible", "_pending")

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        *,
        is_visible: Callable[[int], bool],
        is_byte: Callable[[int], bool] | None,
        context: list[int],
    ) -> None:
        """Begin.

        Args:
            decode: the text of token ids.
            is_visible: whether a token is part of the text at all.
            is_byte: whether a token is a byte-fallback token; None if the decoder knows no such thing, and a
                U+FFFD at the end may be the beginning of a character.
            context: visible tokens that count as standing before the text; empty at the start of a text.
        """
        self._decode = decode
        self._is_visible = is_visible
        self._is_byte = is_byte
        self._context = context
        self._pending: list[int] = []

    def push(self, token_id: int) -> str:
        if not self._is_visible(token_id):
            return ""
        self._pending.append(token_id)
        if self._is_byte is not None and self._is_byte(token_id):
            return ""
        text = self._decode(self._context + self._pending)
        return "" if self._is_byte is None and text.endswith(_REPLACEMENT) else self._take(text)

    def flush(self) -> str:
        return self._take(self._decode(self._context + self._pending)) if self._pending else ""

    def _take(self, text: str) -> str:
        piece = text[len(self._decode(self._context)) :] if self._context else text
        if piece:
            self._context, self._pending = self._pending, []
        return piece
