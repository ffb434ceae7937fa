"""``/tokenize`` and ``/detokenize``."""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict

from vcore.server.protocol.chat import ChatTemplateFields
from vcore.server.protocol.common import RequestModel
from vcore.server.protocol.lists import TokenIds

__all__ = ["DetokenizeRequest", "Detokenized", "TokenizeChatRequest", "TokenizeTextRequest", "Tokenized"]


class TokenizeTextRequest(RequestModel):
    """A text."""

    model: str | None = None
    prompt: str
    add_special_tokens: bool | None = None
    """Add what the model expects around a text; true by default."""
    return_token_strs: bool | None = None


class TokenizeChatRequest(ChatTemplateFields):
    """A conversation."""

    model: str | None = None
    return_token_strs: bool | None = None


class Tokenized(TypedDict):
    """The ids of a text."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: NotRequired[list[str] | None]


class DetokenizeRequest(RequestModel):
    """Token ids."""

    model: str | None = None
    tokens: TokenIds
    skip_special_tokens: bool | None = None
    """False by default."""


class Detokenized(TypedDict):
    """The text of token ids."""

    prompt: str
