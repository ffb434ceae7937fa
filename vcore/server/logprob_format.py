"""Log probabilities as the endpoints tell them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from vcore.outputs import Logprob
from vcore.server.protocol.chat import ChatLogprobs, TopLogprob
from vcore.server.protocol.completions import CompletionLogprobs

__all__ = ["CompletionLogprobWriter", "TokenBytes", "TokenText", "chat_logprobs"]

TokenBytes = Callable[[int], bytes]
"""The UTF-8 bytes of a token."""

TokenText = Callable[[int], str]
"""The text of a token."""

_FLOOR = -9999.0
"""Stands for minus infinity, which JSON cannot say."""


def _finite(logprob: float) -> float:
    return max(logprob, _FLOOR)


def _text(token_id: int, entry: Logprob) -> str:
    return f"token_id:{token_id}" if entry.decoded_token is None else entry.decoded_token


def _most_likely(entries: dict[int, Logprob], count: int) -> Iterable[tuple[int, Logprob]]:
    """The `count` likeliest of a position; the chosen token stands first in `entries` and may be less likely."""
    ranked = [(token_id, entry) for token_id, entry in entries.items() if entry.rank is None or entry.rank <= count]
    return sorted(ranked, key=lambda item: -item[1].logprob)[:count]


def chat_logprobs(
    token_ids: Sequence[int], positions: Sequence[dict[int, Logprob]], count: int, token_bytes: TokenBytes
) -> ChatLogprobs:
    """Of tokens and their positions, with `count` alternatives each."""

    def one(token_id: int, entry: Logprob) -> TopLogprob:
        return {
            "token": _text(token_id, entry),
            "logprob": _finite(entry.logprob),
            "bytes": list(token_bytes(token_id)),
        }

    return {
        "content": [
            {
                **one(token_id, entries[token_id]),
                "top_logprobs": [one(*item) for item in _most_likely(entries, count)],
            }
            for token_id, entries in zip(token_ids, positions, strict=True)
        ],
        "refusal": None,
    }


class CompletionLogprobWriter:
    """The four lists of one choice, whole or in pieces; it keeps where in the text the next token begins."""

    def __init__(self, count: int) -> None:
        """Tell `count` alternatives a token."""
        self._count = count
        self._offset = 0

    def write(
        self, token_ids: Sequence[int], positions: Sequence[dict[int, Logprob] | None], token_text: TokenText
    ) -> CompletionLogprobs:
        """The lists for further tokens.

        Args:
            token_ids: the tokens.
            positions: an entry a token; None where nothing is known, as for the first of a prompt.
            token_text: the text of a token, for positions where nothing is known.
        """
        lists: CompletionLogprobs = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token_id, entries in zip(token_ids, positions, strict=True):
            text = token_text(token_id) if entries is None else _text(token_id, entries[token_id])
            lists["tokens"].append(text)
            lists["text_offset"].append(self._offset)
            lists["token_logprobs"].append(None if entries is None else _finite(entries[token_id].logprob))
            lists["top_logprobs"].append(None if entries is None else self._top(token_id, entries))
            self._offset += len(text)
        return lists

    def _top(self, token_id: int, entries: dict[int, Logprob]) -> dict[str, float] | None:
        """The likeliest tokens, and the chosen one besides; None if no alternatives were asked for."""
        if self._count == 0:
            return None
        found: dict[str, float] = {}
        for item in [*_most_likely(entries, self._count), (token_id, entries[token_id])]:
            found.setdefault(_text(*item), _finite(item[1].logprob))  # tokens of one text, such as broken bytes
        return found
