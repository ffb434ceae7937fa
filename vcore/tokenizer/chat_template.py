"""`ChatTemplates`: from messages to the text of a prompt. Rendering is transformers' own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from vcore.errors import RequestError

__all__ = ["ChatTemplates"]

_DEFAULT = "default"
_TOOL_USE = "tool_use"
_MAX_ROLES = 20
"""Most that an error message shows."""
_ASKS_FOR_NO_CONTENT = re.compile(r"""\bcontent['"]?\]?\s+is\s+(?:not\s+)?none\b""")
_WRITES_ARGUMENTS = re.compile(r"""\barguments['"]?\]?\s*(?:\+|~|-?\}\})""")


class ChatTemplates:
    """The Jinja templates of a model, by name, with the special tokens that they may refer to.

    A template is the model's own file and runs in a sandbox.
    """

    __slots__ = ("_special_tokens", "_templates")

    def __init__(self, templates: Mapping[str, str], special_tokens: Mapping[str, str]) -> None:
        """Keep templates.

        Args:
            templates: by name; ``default`` is used unless tools are given and there is a ``tool_use``.
            special_tokens: such as ``{"bos_token": "<s>"}``.
        """
        self._templates = dict(templates)
        self._special_tokens = dict(special_tokens)

    def __len__(self) -> int:
        return len(self._templates)

    @property
    def sources(self) -> dict[str, str]:
        """The templates' text, by name."""
        return dict(self._templates)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        add_generation_prompt: bool = True,
        chat_template: str | None = None,
        **variables: Any,
    ) -> str:
        """The prompt's text.

        Args:
            messages: mappings with ``role`` and ``content``, and what else the template reads. Arguments of calls may
                be objects; a template that writes them as they are gets JSON.
            add_generation_prompt: end with the beginning of the assistant's answer.
            chat_template: a template to use instead of the model's own.
            variables: passed on to the template, such as ``tools``, ``documents``, ``continue_final_message``.

        Raises:
            RequestError: there is no template, or it refuses these messages.
        """
        conversation = _checked(messages)
        template = chat_template or self._choose(variables.get("tools"))
        conversation = _as_expected(conversation, template)
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            rendered, _ = render_jinja_template(
                conversations=[conversation],
                chat_template=template,
                add_generation_prompt=add_generation_prompt,
                **{**self._special_tokens, **variables},
            )
        except Exception as error:  # whatever a template does with this input is about this input alone
            raise RequestError(
                f"the chat template cannot render these messages (roles: {_roles(conversation)}): "
                f"{type(error).__name__}: {error}",
                param="messages",
            ) from error
        return str(rendered[0])

    def _choose(self, tools: object) -> str:
        if tools and _TOOL_USE in self._templates:
            return self._templates[_TOOL_USE]
        if _DEFAULT in self._templates:
            return self._templates[_DEFAULT]
        if len(self._templates) == 1:
            return next(iter(self._templates.values()))
        have = f"only {', '.join(sorted(self._templates))}" if self._templates else "none"
        raise RequestError(
            f"the model has no default chat template ({have}); pass chat_template=..., use an instruction-tuned "
            "model, or write the prompt's text yourself and call generate",
            param="messages",
        )


def _checked(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages as dictionaries, without the keys whose value is None: templates take those for text."""
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence) or not messages:
        raise RequestError(
            f"messages must be a list of at least one {{'role': ..., 'content': ...}}, got {messages!r:.80}",
            param="messages",
        )
    for position, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise RequestError(
                f"message {position} must be a mapping with a 'role' (system, user or assistant), got {message!r:.80}",
                param="messages",
            )
    return [{key: value for key, value in message.items() if value is not None} for message in messages]


def _as_expected(conversation: list[dict[str, Any]], template: str) -> list[dict[str, Any]]:
    """The messages in the form that `template` reads, where templates differ: DeepSeek's tell a message that only calls
    tools by its content, which is None and not missing, and take the arguments of calls for text."""
    asks_for_no_content, writes_arguments = _habits(template)
    if asks_for_no_content:
        conversation = [message if "content" in message else {**message, "content": None} for message in conversation]
    if writes_arguments:
        conversation = [_with_written_arguments(message) for message in conversation]
    return conversation


@lru_cache(maxsize=16)
def _habits(template: str) -> tuple[bool, bool]:
    """Whether a template tells a content that is None, and whether it writes arguments of calls without a filter."""
    return _ASKS_FOR_NO_CONTENT.search(template) is not None, _WRITES_ARGUMENTS.search(template) is not None


def _with_written_arguments(message: dict[str, Any]) -> dict[str, Any]:
    calls = message.get("tool_calls")
    return {**message, "tool_calls": list(map(_with_text, calls))} if isinstance(calls, list) else message


def _with_text(call: Any) -> Any:  # whatever stands among the calls of a message
    function = call.get("function") if isinstance(call, Mapping) else None
    arguments = function.get("arguments") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(arguments, Mapping):
        return call
    return {**call, "function": {**function, "arguments": json.dumps(arguments, ensure_ascii=False)}}


def _roles(conversation: list[dict[str, Any]]) -> str:
    roles = [message["role"] for message in conversation[:_MAX_ROLES]]
    return ", ".join([*roles, "..."] if len(conversation) > _MAX_ROLES else roles)
