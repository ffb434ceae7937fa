"""From the messages of a request to the prompt that the chat template makes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vcore.engine.prompts import TokensPrompt
from vcore.errors import RequestError

if TYPE_CHECKING:
    from vcore.server.context import ServerContext
    from vcore.server.protocol.chat import ChatTemplateFields

__all__ = ["render_prompt"]

_LONG = 4000
"""Characters that are rendered and tokenised in a millisecond or two; more leave the event loop to others."""
_MESSAGE_LENGTH = 50
"""What a message costs besides its text, in characters."""
_OWN_FIELDS = ("messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template")
"""What `chat_template_kwargs` may not set."""


async def render_prompt(context: ServerContext, body: ChatTemplateFields) -> TokensPrompt:
    """The prompt of a conversation.

    Raises:
        RequestError: the template refuses it, there is none, or its variables are wrong.
    """
    messages = [message.for_template() for message in body.messages]
    options = _template_options(body, context.chat_template)
    if _is_long([messages, options.get("tools"), body.chat_template_kwargs]):
        return await asyncio.to_thread(context.engine.render_chat, messages, **options)
    return context.engine.render_chat(messages, **options)


def _is_long(value: Any) -> bool:  # whatever JSON holds
    """Whether a template may make many characters of `value`, however deep it is nested. It looks no further than that
    takes: millions of numbers would keep others waiting, too."""
    length, waiting = 0, [value]
    while waiting and length <= _LONG:
        one = waiting.pop()
        length += 1  # empty lists, too, take time
        if isinstance(one, str):
            length += len(one)
        elif isinstance(one, Mapping):
            length += _MESSAGE_LENGTH
            waiting += one.values()
        elif isinstance(one, Sequence):
            waiting += one
    return length > _LONG


def _template_options(body: ChatTemplateFields, template: str | None) -> dict[str, Any]:
    options = dict(body.chat_template_kwargs or {})
    for field in _OWN_FIELDS:
        if field in options:
            hint = "the operator sets it" if field == "chat_template" else f"it is the field {field!r} of the request"
            raise RequestError(f"chat_template_kwargs may not have {field!r}: {hint}", param="chat_template_kwargs")
    going_on = bool(body.continue_final_message)
    if going_on and body.add_generation_prompt:
        raise RequestError(
            "add_generation_prompt and continue_final_message contradict each other: an answer begins, or goes on",
            param="continue_final_message",
        )
    options["add_generation_prompt"] = (
        not going_on if body.add_generation_prompt is None else body.add_generation_prompt
    )
    if going_on:
        options["continue_final_message"] = True
    if body.tools:
        options["tools"] = [tool.model_dump(exclude_none=True) for tool in body.tools]
    if body.reasoning_effort is not None:
        options["reasoning_effort"] = body.reasoning_effort
    if template is not None:
        options["chat_template"] = template
    return options
