"""The forms in which conversations may come, and their checks. Knows no chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vcore.engine.prompts import check_text
from vcore.errors import RequestError

__all__ = ["Conversation", "Message", "check_conversation", "split_conversations"]

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
