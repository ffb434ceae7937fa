"""``/v1/responses``: text and function calls, without anything that is stored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from vcore.server.protocol.common import RequestModel, SamplingFields, TopLogprobs
from vcore.server.protocol.lists import MAX_ITEMS, MAX_TOOLS
from vcore.server.protocol.numbers import Count

__all__ = ["ResponseObject", "ResponseUsage", "ResponsesRequest"]


class TextOptions(RequestModel):
    """The form of the text."""

    format: dict[str, Any] | None = None
    """``{"type": "text"}``, ``{"type": "json_object"}``, ``{"type": "json_schema", "schema": {...}}``."""


class ReasoningOptions(RequestModel):
    """How much to think."""

    effort: str | None = None
    """Goes to the chat template, if given."""


class ResponsesRequest(SamplingFields):
    """What to answer."""

    model: str | None = None
    """One of ``/v1/models``; the first of them by default."""
    input: str | Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_ITEMS)]
    """A user's text; or items: messages, ``function_call``, ``function_call_output``, ``reasoning``."""
    instructions: str | None = None
    """Comes first, as the system's message."""
    max_output_tokens: Count | None = None
    """The most tokens to generate; by default as many as the model's length allows."""
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=MAX_TOOLS)] | None = None
    """Functions: ``{"type": "function", "name": ..., "parameters": {...}}``."""
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    top_logprobs: TopLogprobs | None = None
    include: list[str] | None = None
    """``message.output_text.logprobs`` is served, the rest is ignored."""
    metadata: dict[str, str] | None = None
    """Comes back in the answer."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables for the chat template."""
    truncation: str | None = None
    """Only ``disabled`` is served."""
    store: bool | None = None
    """Ignored: nothing is stored."""
    previous_response_id: str | None = None
    """Not served, since nothing is stored."""
    conversation: str | dict[str, Any] | None = None
    """Not served, since nothing is stored."""
    background: bool | None = None
    """Not served."""
    prompt: dict[str, Any] | None = None
    """Not served: prompt templates are stored elsewhere."""


class InputTokensDetails(TypedDict):
    """Of the prompt's tokens."""

    cached_tokens: int


class OutputTokensDetails(TypedDict):
    """Of the generated tokens."""

    reasoning_tokens: int
    """As many as the tokenizer makes of the reasoning's text."""


class ResponseUsage(TypedDict):
    """Tokens of a response."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseFailure(TypedDict):
    """Why a response failed."""

    code: str
    message: str


class IncompleteDetails(TypedDict):
    """Why a response ends early."""

    reason: Literal["max_output_tokens"]


class ResponseObject(TypedDict):
    """A response, whole or as far as it is known."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[dict[str, Any]]
    """Items: ``message``, ``reasoning``, ``function_call``."""
    parallel_tool_calls: bool
    previous_response_id: None
    store: Literal[False]
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_p: float
    truncation: Literal["disabled"]
    usage: ResponseUsage | None
    """None until it has ended."""
