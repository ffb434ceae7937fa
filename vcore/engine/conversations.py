"""The forms in which conversations may come, their checks, and the prompts that chat templates make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vcore.engine.param_checks import check_text_fits
from vcore.engine.prompts import TokensPrompt, check_text
from vcore.errors import RequestError

if TYPE_CHECKING:
    from vcore.tokenizer import Tokenizer

__all__ = ["Conversation", "Message", "check_conversation", "render_conversation", "split_conversations"]

Message = Mapping[str, Any]
"""``{"role": ..., "content": ...}``; other keys go to the chat template as they are."""

Conversation = Sequence[Message]
"""Messages, oldest first."""


def split_conversations(messages: Conversation | Sequence[Conversation]) -> tuple[list[Conversation], bool]:
    """Tell one conversation from several.

    Returns:
        The conversations, and whether several were meant: a list whose first element is a list itself.
    """
    if not isinstance(messages, list | tuple):
        raise RequestError(
            f"a conversation is a list of messages such as {{'role': 'user', 'content': ...}}, "
            f"got {type(messages).__name__}",
            param="messages",
        )
    if messages and isinstance(messages[0], list | tuple):
        return list(messages), True
    return [messages], False


def render_conversation(
    conversation: object, tokenizer: Tokenizer, max_model_len: int, template_options: Mapping[str, Any]
) -> TokensPrompt:
    """The prompt that the chat template makes of a conversation, in text and token ids.

    Args:
        conversation: as users give it.
        tokenizer: has the template.
        max_model_len: what a text that is longer by far is refused for, before it is tokenised.
        template_options: for the template.

    Raises:
        RequestError: a message is wrong, there is no chat template, or it refuses the messages.
        RequestTooLargeError: the text has more tokens than the model takes, however it is tokenised.
    """
    messages = check_conversation(conversation)
    text = tokenizer.render_chat(messages, **template_options)
    check_text_fits(text, tokenizer, max_model_len, "messages")
    return {"prompt_token_ids": tokenizer.encode(text, add_special_tokens=False), "prompt": text}


def check_conversation(conversation: object) -> list[dict[str, Any]]:
    """The messages as dictionaries with text as content.

    Raises:
        RequestError: there is none, or one has no role or no text; the message says which.
    """
    if not isinstance(conversation, list | tuple):
        raise RequestError(f"a conversation is a list of messages, got {type(conversation).__name__}", param="messages")
    if not conversation:
        raise RequestError("the conversation is empty: it has no messages", param="messages")
    return [_message(message, position) for position, message in enumerate(conversation)]


def _message(message: object, position: int) -> dict[str, Any]:
    name = f"messages[{position}]"
    if not isinstance(message, Mapping):
        raise RequestError(f"{name} must be a dictionary, got {type(message).__name__}", param="messages")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise RequestError(f"{name} needs a role such as 'user', got {role!r}", param="messages")
    if isinstance(content, list | tuple):
        content = "".join(_part(part, name) for part in content)
    if content is None and message.keys() - {"role", "content"}:
        return dict(message)  # an assistant's call of a tool, say, has no text
    if not isinstance(content, str):
        raise RequestError(f"{name} needs text as its content, got {type(content).__name__}", param="messages")
    check_text(content, f"the content of {name}")
    return {**message, "content": content}


def _part(part: object, name: str) -> str:
    """The text of one part of a content that is given in parts."""
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise RequestError(f"{name} has a part of type {kind!r}; only text is served", param="messages")
