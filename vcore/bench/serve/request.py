"""`LoadRequest`: what one request of a load asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["LoadRequest"]

Message = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class LoadRequest:
    """A prompt in one of its three forms, and how much to generate."""

    num_output_tokens: int
    """Tokens to generate; ends of sequence are ignored."""
    token_ids: list[int] | None = None
    text: str | None = None
    messages: list[Message] | None = None
    """A conversation, for a chat endpoint."""
    priority: int = 0
    """Lower is more urgent."""
