"""`RequestWishes`: what a request says of itself and never changes, as policies of all kinds see it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["RequestWishes"]


class RequestWishes(Protocol):
    """The part that views of a request have in common: read only."""

    @property
    def priority(self) -> int:
        """Lower is more urgent; 0 unless the request says otherwise."""
        ...

    @property
    def tenant(self) -> str | None:
        """Whose request it is; None if it does not say."""
        ...

    @property
    def ttft_target_s(self) -> float | None:
        """Seconds from arrival within which it wants its first token; None if it does not say."""
        ...

    @property
    def itl_target_s(self) -> float | None:
        """Mean seconds between tokens that it wants; None if it does not say."""
        ...

    @property
    def expected_tokens(self) -> int | None:
        """How many tokens it says that it will generate, from 1 to `max_tokens`; None if it does not say."""
        ...

    @property
    def num_prompt_tokens(self) -> int: ...
