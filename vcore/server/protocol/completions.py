"""``/v1/completions``: text goes on."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from vcore.server.protocol.common import CommonAnswer, SamplingFields, TopLogprobs
from vcore.server.protocol.numbers import Natural, Whole

__all__ = [
    "Completion",
    "CompletionChoice",
    "CompletionChunk",
    "CompletionChunkChoice",
    "CompletionLogprobs",
    "CompletionRequest",
    "FinishReason",
    "PromptForms",
    "Prompts",
]

PromptForms = str | list[str] | list[int] | list[list[int]]
"""One prompt or several, as text or token ids."""

_FORMS = "a string, a list of token ids, or a list of either"
_IDS_SCHEMA = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}}
_PROMPT_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
        _IDS_SCHEMA,
        {"type": "array", "minItems": 1, "items": _IDS_SCHEMA},
    ]
}


def _check_prompt(value: Any) -> PromptForms:  # whatever JSON holds
    """The form alone, in C, since a prompt may have a million ids; the engine checks the rest."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        kinds = set(map(type, value))
        if kinds in ({str}, {int}):
            return value
        if kinds == {list} and all(item and set(map(type, item)) == {int} for item in value):
            return value
    got = (
        type(value).__name__
        if not isinstance(value, list)
        else "a list of something else"
        if value
        else "an empty list"
    )
    raise PydanticCustomError("prompt_form", f"must be {_FORMS}, not {got}")


Prompts = Annotated[PromptForms, PlainValidator(_check_prompt), WithJsonSchema(_PROMPT_SCHEMA)]
"""`PromptForms` as a field."""


class CompletionRequest(SamplingFields):
    """Text to go on with."""

    model: str | None = None
    """One of ``/v1/models``; the first of them by default."""
    prompt: Prompts
    max_tokens: Natural | None = None
    """The most tokens to generate; 16 by default. 0 generates nothing: with `echo` and `logprobs`, a prompt's
    log probabilities."""
    echo: bool | None = None
    """Begin the text with the prompt."""
    logprobs: TopLogprobs | None = None
    """So many alternatives a token; 0 for the token alone."""
    suffix: str | None = None
    """Not served."""
    best_of: Annotated[Whole, Field(ge=0)] | None = None
    """Served if it equals `n`."""


class CompletionLogprobs(TypedDict):
    """Log probabilities of a choice: one entry a token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    """None for the first token of the prompt."""
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]
    """Where each token begins in `text`, in characters."""


FinishReason = Literal["stop", "length"]


class CompletionChoice(TypedDict):
    """One sample of one prompt."""

    index: int
    """Samples of the first prompt first."""
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason
    stop_reason: int | str | None
    """The stop string or token id that ended it."""


class Completion(CommonAnswer):
    """All choices."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]


class CompletionChunkChoice(TypedDict):
    """What is new of a choice."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None
    """In the last chunk of the choice."""
    stop_reason: NotRequired[int | str | None]


class CompletionChunk(CommonAnswer):
    """A piece of a stream."""

    object: Literal["text_completion"]
    choices: list[CompletionChunkChoice]
