"""``/v1/embeddings``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from vcore.server.protocol.common import RequestModel
from vcore.server.protocol.completions import PromptForms, Prompts
from vcore.server.protocol.numbers import Count, Int32

__all__ = ["MAX_INPUTS", "Embedding", "Embeddings", "EmbeddingsRequest", "EmbeddingsUsage"]

MAX_INPUTS = 2048
"""Most texts of a request, as with OpenAI."""


def _check_inputs(value: PromptForms) -> PromptForms:
    """Refuse too many texts, and empty ones."""
    if isinstance(value, str):
        if not value:
            raise PydanticCustomError("empty", "is empty")
    elif not isinstance(value[0], int):
        if len(value) > MAX_INPUTS:
            context = {"count": len(value), "most": MAX_INPUTS}
            raise PydanticCustomError("too_long", "has {count} texts; at most {most} are taken, so split it", context)
        if "" in value:
            index = next(index for index, text in enumerate(value) if text == "")
            raise PydanticCustomError("empty", "has an empty text at position {index}", {"index": index})
    return value


class EmbeddingsRequest(RequestModel):
    """Texts to embed."""

    model: str | None = None
    """One of ``/v1/models``; the first of them by default."""
    input: Annotated[Prompts, AfterValidator(_check_inputs)]
    """At most 2,048 texts."""
    encoding_format: Literal["float", "base64"] | None = None
    """``base64``: float32 in little-endian order. ``float``, the default: a list of numbers."""
    dimensions: Count | None = None
    """So many leading features, normalised anew, of models that were trained for it."""
    normalize: bool | None = None
    """Whether vectors are scaled to length 1; by default as the model says."""
    priority: Int32 | None = None
    """For scheduling policies that use it: lower is more urgent."""
    tenant: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Who asks, for scheduling policies that share between tenants."""
    cache_salt: str | None = None
    """Only requests with the same salt share cached prefixes."""
    user: str | None = None
    """Ignored."""


class Embedding(TypedDict):
    """One vector."""

    object: Literal["embedding"]
    index: int
    """Of its text in `input`."""
    embedding: list[float] | str


class EmbeddingsUsage(TypedDict):
    """Tokens of a request."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(TypedDict):
    """All vectors, in the order of `input`."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage
