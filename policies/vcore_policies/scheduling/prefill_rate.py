"""`PrefillRate`: how many tokens a second are computed where prompts fill the steps."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["PrefillRate"]

_WEIGHT = 0.1
"""Of the latest interval, in the moving average."""


class PrefillRate:
    """A given rate, or a moving average over intervals whose steps were at least half full on average.

    Steps that only decode compute few tokens and say nothing of prompts.
    """

    def __init__(self, max_num_batched_tokens: int, given: float | None) -> None:
        """A rate.

        Args:
            max_num_batched_tokens: of a full step.
            given: tokens a second; None to learn them.
        """
        self._least = max_num_batched_tokens / 2
        self._given = given
        self._learned: float | None = None
        self._since: float | None = None
        self._num_tokens = 0
        self._num_steps = 0

    @property
    def tokens_per_s(self) -> float | None:
        """The rate; None while nothing is known."""
        return self._learned if self._given is None else self._given

    def add(self, num_tokens: Sequence[int]) -> None:
        """A step computed so many tokens of each of its requests."""
        self._num_tokens += sum(num_tokens)
        self._num_steps += 1

    def tick(self, now: float) -> None:
        """An interval ends and the next begins at `now`, in seconds."""
        since, num_tokens, num_steps = self._since, self._num_tokens, self._num_steps
        self._since, self._num_tokens, self._num_steps = now, 0, 0
        if since is None or now <= since or not num_steps or num_tokens < self._least * num_steps:
            return
        rate = num_tokens / (now - since)
        self._learned = rate if self._learned is None else self._learned + _WEIGHT * (rate - self._learned)

    def seconds(self, num_tokens: int) -> float:
        """What so many tokens of a prompt take; 0 while nothing is known."""
        rate = self.tokens_per_s
        return 0.0 if rate is None else num_tokens / rate
