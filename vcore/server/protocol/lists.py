"""Lists of requests, no longer than can be checked while nobody notices: it is done between two pieces of streams."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

__all__ = ["MAX_BIASES", "MAX_ITEMS", "MAX_TOOLS", "TokenIds", "Word", "Words", "check_items"]

MAX_ITEMS = 1 << 14
"""Most messages of a conversation, and most parts of all of them together."""
MAX_TOOLS = 1 << 10
MAX_BIASES = 1 << 16
"""Most entries of `logit_bias`."""
_MAX_ID = 2**31 - 1

_MAX_CHARACTERS = 1 << 16
"""Most of a list of words, all together."""


def _check_words(words: list[str]) -> list[str]:
    if (count := sum(map(len, words))) > _MAX_CHARACTERS:
        context = {"count": count, "most": _MAX_CHARACTERS}
        raise PydanticCustomError("too_long", "has {count} characters; at most {most} are taken", context)
    return words


Word = Annotated[str, Field(min_length=1, max_length=4096)]
Words = Annotated[list[Word], Field(max_length=1 << 10), AfterValidator(_check_words)]
"""Stop strings, or words that are not wanted; each is looked for in all that is generated."""


def _check_ids(value: Any) -> list[int]:  # whatever JSON holds
    """The checks of a million ids, in C."""
    if not isinstance(value, list):
        raise PydanticCustomError("token_ids", "must be a list of token ids")
    kinds = set(map(type, value))
    if float in kinds:  # JSON has one kind of number
        value = [int(one) if isinstance(one, float) and one.is_integer() else one for one in value]
        kinds = set(map(type, value))
    if kinds - {int} or (value and not 0 <= min(value) <= max(value) <= _MAX_ID):
        position = next(i for i, one in enumerate(value) if type(one) is not int or not 0 <= one <= _MAX_ID)
        wrong = f"{value[position]!r:.80}"
        raise PydanticCustomError(
            "token_ids",
            "has {wrong} at position {position}, which is no token id",
            {"wrong": wrong, "position": position},
        )
    ids: list[int] = value
    return ids


TokenIds = Annotated[
    list[int],
    PlainValidator(_check_ids),
    WithJsonSchema({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": _MAX_ID}}),
]
"""Ids that a vocabulary may have; the model's is not known here."""


def check_items(value: Any) -> Any:  # whatever JSON holds
    """Refuse a conversation that is too long, before its messages are looked at."""
    if isinstance(value, list):
        contents = (item.get("content") for item in value[: MAX_ITEMS + 1] if isinstance(item, dict))
        num_parts = sum(len(content) for content in contents if isinstance(content, list))
        for what, count in (("messages", len(value)), ("parts", num_parts)):
            if count > MAX_ITEMS:
                raise PydanticCustomError(
                    "too_long",
                    "has {count} {what}; at most {most} are taken",
                    {"count": count, "what": what, "most": MAX_ITEMS},
                )
    return value
