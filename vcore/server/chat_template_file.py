"""The chat template that an operator gives in the place of the model's own."""

from __future__ import annotations

from pathlib import Path

from vcore.errors import ConfigError, RequestError

__all__ = ["read_chat_template"]


def read_chat_template(path: Path) -> str:
    """The text of the template in the file at `path`. What it makes of a conversation is seen by requests alone.

    Raises:
        ConfigError: it cannot be read, is empty, or is no template.
    """
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, RuntimeError) as error:  # the last: of a home that nobody has
        raise ConfigError(
            f"chat_template: {path} cannot be read: {error}. Write the path of a Jinja file, or leave it out for the "
            "model's own template"
        ) from error
    if not text.strip():
        raise ConfigError(f"chat_template: {path} is empty; expected a Jinja template, or no file for the model's own")
    _check_syntax(text, path)
    return text


def _check_syntax(text: str, path: Path) -> None:
    from jinja2 import TemplateSyntaxError

    from vcore.tokenizer.chat_template import ChatTemplates

    try:
        ChatTemplates({"default": text}, {}).render([{"role": "user", "content": "hi"}])
    except RequestError as error:  # most often it wants another conversation, or has a name for tokens
        if isinstance(cause := error.__cause__, TemplateSyntaxError):
            raise ConfigError(f"chat_template: {path}, line {cause.lineno}, is no Jinja: {cause.message}") from error
