"""Did-you-mean: the close matches that an error message offers for a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["close_match", "did_you_mean"]


def close_match(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The name among `known` that is most like `word`, or None if none is."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def did_you_mean(word: str, known: Iterable[str], *, most: int = 3, cutoff: float = 0.6) -> str:
    """``"; did you mean 'x' or 'y'?"`` with at most so many names, or an empty string if nothing is close."""
    matches = difflib.get_close_matches(word, sorted(set(known)), n=most, cutoff=cutoff)
    return f"; did you mean {' or '.join(map(repr, matches))}?" if matches else ""
