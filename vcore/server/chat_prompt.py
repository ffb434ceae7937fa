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

_LONG = 20_000
"""Characters from which on rendering and tokenising leave the event loop."""
_OF_A_MESSAGE, _OF_A_TOOL = 50, 500
_OWN_FIELDS = ("messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template")
"""What `chat_template_kwargs` may not set."""


async def render_prompt(context: ServerContext, body: ChatTemplateFields) -> TokensPrompt:
    """The prompt of a conversation.

    Raises:
        RequestError: the template refuses it, there is none, or its variables are wrong.
    """
    messages = [message.for_template() for message in body.messages]
    options = _template_options(body, context.chat_template)
    if _size(body, messages) > _LONG:
        return await asyncio.to_thread(context.engine.render_chat, messages, **options)
    return context.engine.render_chat(messages, **options)


def _size(body: ChatTemplateFields, messages: Sequence[Mapping[str, Any]]) -> int:
    """About how many characters come of it."""
    text = sum(len(message.get("content") or "") for message in messages)
    return text + _OF_A_MESSAGE * len(messages) + _OF_A_TOOL * len(body.tools or ())


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
