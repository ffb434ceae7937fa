"""``/v1/chat/completions``: a conversation goes on."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, NotRequired

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from vcore.server.protocol.common import CommonAnswer, RequestModel, SamplingFields, TopLogprobs
from vcore.server.protocol.lists import MAX_ITEMS, MAX_TOOLS, check_items
from vcore.server.protocol.numbers import Count

__all__ = [
    "AssistantMessage",
    "ChatCompletion",
    "ChatCompletionChoice",
    "ChatCompletionChunk",
    "ChatCompletionChunkChoice",
    "ChatCompletionRequest",
    "ChatLogprob",
    "ChatLogprobs",
    "ChatMessage",
    "ChatTemplateFields",
    "FinishReason",
    "MessageDelta",
    "ToolCallDelta",
    "TopLogprob",
]


class TextPart(RequestModel):
    """A piece of a content that comes in parts."""

    type: Literal["text"]
    text: str


class FunctionCall(RequestModel):
    """A call that the assistant made earlier."""

    name: str
    arguments: str = "{}"
    """JSON."""


class ToolCall(RequestModel):
    """A call that the assistant made earlier."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(RequestModel):
    """One message; other keys go to the chat template as they are."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None

    def for_template(self) -> dict[str, Any]:
        """As templates read it: content as one text, a developer as the system, arguments of calls as objects."""
        message = self.model_dump(exclude_none=True)
        if self.role == "developer":
            message["role"] = "system"
        if isinstance(self.content, list):
            message["content"] = "".join(part.text for part in self.content)
        if not message.get("tool_calls"):
            message.pop("tool_calls", None)  # templates take an empty list for calls
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = _object(call["function"]["arguments"])
        return message


def _object(arguments: str) -> Any:  # an object, or the text if it is none
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return parsed if isinstance(parsed, dict) else arguments


class FunctionDefinition(RequestModel):
    """A function that the model may call."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema."""
    strict: bool | None = None


class Tool(RequestModel):
    """Something that the model may call."""

    type: Literal["function"]
    function: FunctionDefinition


class FunctionName(RequestModel):
    """The function to call."""

    name: str


class NamedToolChoice(RequestModel):
    """The one tool to call."""

    type: Literal["function"]
    function: FunctionName


class ChatTemplateFields(RequestModel):
    """What the chat template is given."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_ITEMS), BeforeValidator(check_items)]
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    add_generation_prompt: bool | None = None
    """Whether the prompt ends with the beginning of the assistant's answer; true by default."""
    continue_final_message: bool | None = None
    """Whether the answer goes on with the last message."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables for the template, such as ``{"enable_thinking": false}``."""
    reasoning_effort: str | None = None
    """Goes to the template, if given."""


class ChatCompletionRequest(SamplingFields, ChatTemplateFields):
    """A conversation to go on with."""

    model: str | None = None
    """One of ``/v1/models``; the first of them by default."""
    max_completion_tokens: Count | None = None
    """The most tokens to generate; by default as many as the model's length allows."""
    max_tokens: Count | None = None
    """The same by its older name."""
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    """So many alternatives a token; needs `logprobs`."""
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    """False: at most one call."""
    include_reasoning: bool | None = None
    """False: leave `reasoning_content` out."""
    modalities: list[str] | None = None
    """Only ``text`` is served."""
    audio: dict[str, Any] | None = None
    """Not served."""
    functions: list[dict[str, Any]] | None = None
    """Not served: use `tools`."""
    function_call: str | dict[str, Any] | None = None
    """Not served: use `tool_choice`."""
    web_search_options: dict[str, Any] | None = None
    """Not served."""


class TopLogprob(TypedDict):
    """One alternative at a position."""

    token: str
    logprob: float
    bytes: list[int] | None
    """The token's UTF-8 bytes, which may be part of a character."""


class ChatLogprob(TopLogprob):
    """The token at a position."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    """Log probabilities of a choice: one entry a token."""

    content: list[ChatLogprob]
    refusal: None


class AnsweredFunction(TypedDict):
    """Which function, and its arguments as JSON."""

    name: str
    arguments: str


class AnsweredToolCall(TypedDict):
    """A call that the model makes."""

    id: str
    type: Literal["function"]
    function: AnsweredFunction


class AssistantMessage(TypedDict):
    """What the model says."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: NotRequired[str | None]
    tool_calls: NotRequired[list[AnsweredToolCall]]


FinishReason = Literal["stop", "length", "tool_calls"]


class ChatCompletionChoice(TypedDict):
    """One sample."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason
    stop_reason: int | str | None
    """The stop string or token id that ended it."""


class ChatCompletion(CommonAnswer):
    """All choices."""

    object: Literal["chat.completion"]
    choices: list[ChatCompletionChoice]


class FunctionDelta(TypedDict):
    """What is new of a call's function."""

    name: NotRequired[str]
    arguments: str


class ToolCallDelta(TypedDict):
    """What is new of a call; `id`, `type` and the name come with its first piece."""

    index: int
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: FunctionDelta


class MessageDelta(TypedDict):
    """What is new of a message."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str | None]
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[ToolCallDelta]]


class ChatCompletionChunkChoice(TypedDict):
    """What is new of a choice."""

    index: int
    delta: MessageDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None
    """In the last chunk of the choice."""
    stop_reason: NotRequired[int | str | None]


class ChatCompletionChunk(CommonAnswer):
    """A piece of a stream."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChatCompletionChunkChoice]
