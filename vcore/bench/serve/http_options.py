"""`HTTPOptions`: how the requests to a server look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Endpoint", "HTTPOptions"]


class Endpoint(StrEnum):
    """What is asked."""

    COMPLETIONS = "completions"
    CHAT = "chat"

    @property
    def path(self) -> str:
        """Under the server's root."""
        return "/v1/chat/completions" if self is Endpoint.CHAT else "/v1/completions"


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPOptions:
    """How requests look."""

    endpoint: Endpoint = Endpoint.COMPLETIONS
    model: str | None = None
    """None for the first that the server lists."""
    api_key: str | None = None
    verify: bool = True
    """Whether a TLS certificate must be valid."""
    temperature: float = 0.6
    ignore_eos: bool = True
    """Whether to ask for it; it is no field of OpenAI's own."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Over all other fields; None takes one out."""

    @property
    def is_chat(self) -> bool:
        """Whether conversations are asked for."""
        return self.endpoint is Endpoint.CHAT
