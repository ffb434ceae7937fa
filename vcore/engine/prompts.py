"""The forms in which a prompt may come, and their reduction to `ParsedPrompt`. Knows no tokenizer and no model."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from vcore.errors import RequestError

__all__ = ["ParsedPrompt", "Prompt", "TextPrompt", "TokensPrompt", "check_text", "parse_prompt", "split_prompts"]


class TextPrompt(TypedDict):
    """A prompt as text."""

    prompt: str


class TokensPrompt(TypedDict):
    """A prompt as token ids; `prompt` is only shown in the output."""

    prompt_token_ids: Sequence[int]
    prompt: NotRequired[str]


Prompt = str | Sequence[int] | TextPrompt | TokensPrompt
"""One prompt."""

_KEYS = ("prompt", "prompt_token_ids")
_FORMS = "a prompt is a string, a list of token ids, {'prompt': ...} or {'prompt_token_ids': [...]}"


@dataclass(frozen=True, slots=True)
class ParsedPrompt:
    """A prompt of any form: text, or token ids, or both."""

    text: str | None
    token_ids: list[int] | None


def split_prompts(prompts: Prompt | Sequence[Prompt]) -> tuple[list[Prompt], bool]:
    """Tell one prompt from several.

    Returns:
        The prompts, and whether several were meant: a list whose first element is no number.
    """
    if isinstance(prompts, str | Mapping) or not isinstance(prompts, list | tuple):
        return [prompts], False  # type: ignore[list-item]  # whatever it is, parse_prompt will say
    if prompts and not isinstance(prompts[0], str | bytes | Mapping | list | tuple | None):
        return [prompts], False
    return list(prompts), True


def parse_prompt(prompt: object) -> ParsedPrompt:
    """Check the form of a prompt, the text's characters and the types of the token ids.

    Raises:
        RequestError: it has no known form, is empty, holds a lone surrogate, or an id is no integer.
    """
    if isinstance(prompt, str):
        return ParsedPrompt(_checked_text(prompt), None)
    if isinstance(prompt, Mapping):
        return _from_mapping(prompt)
    if isinstance(prompt, list | tuple):
        return ParsedPrompt(None, _checked_ids(prompt))
    kind = type(prompt).__name__
    hint = "; call its .tolist()" if hasattr(prompt, "tolist") else ""
    raise RequestError(f"a prompt cannot be of type {kind}: {_FORMS}{hint}", param="prompt")


def _from_mapping(prompt: Mapping[object, object]) -> ParsedPrompt:
    unknown = [repr(key) for key in prompt if key not in _KEYS]
    if unknown:
        raise RequestError(f"a prompt has no key {', '.join(unknown)}; known: {', '.join(_KEYS)}", param="prompt")
    text, token_ids = prompt.get("prompt"), prompt.get("prompt_token_ids")
    if text is not None and not isinstance(text, str):
        raise RequestError(f"prompt must be a string, got {type(text).__name__}", param="prompt")
    if token_ids is None:
        if text is None:
            raise RequestError(f"the prompt's dictionary has neither text nor token ids: {_FORMS}", param="prompt")
        return ParsedPrompt(_checked_text(text), None)
    if not isinstance(token_ids, list | tuple):
        kind = type(token_ids).__name__
        raise RequestError(f"prompt_token_ids must be a list of integers, got {kind}", param="prompt_token_ids")
    return ParsedPrompt(text, _checked_ids(token_ids))


def _checked_text(text: str) -> str:
    if not text:
        raise RequestError(
            "the prompt is empty; to generate from nothing, pass a list with the model's beginning-of-sequence id",
            param="prompt",
        )
    check_text(text, "prompt")
    return text


def check_text(text: str, param: str) -> None:
    """Refuse text that no tokenizer can encode.

    Raises:
        RequestError: it holds a lone surrogate.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise RequestError(
            f"{param} is not valid Unicode: a lone surrogate U+{code:04X} at character {error.start}; "
            "decode the original bytes as UTF-8, or replace it",
            param=param,
        ) from None


def _checked_ids(token_ids: Sequence[object]) -> list[int]:
    if not token_ids:
        raise RequestError("the prompt is empty: it has no token ids", param="prompt_token_ids")
    if set(map(type, token_ids)) == {int}:
        return list(token_ids)  # type: ignore[arg-type]  # just checked, in C
    return [_integer(token_id, position) for position, token_id in enumerate(token_ids)]


def _integer(token_id: object, position: int) -> int:
    """`token_id` as an int, if it is one of any kind (numpy's too) but a bool."""
    if not isinstance(token_id, bool) and hasattr(token_id, "__index__"):
        try:
            return operator.index(token_id)
        except TypeError:
            pass
    raise RequestError(
        f"token ids must be integers, got {token_id!r} ({type(token_id).__name__}) at position {position}",
        param="prompt_token_ids",
    )
