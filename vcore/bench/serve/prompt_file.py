"""`PromptFile`: prompts that somebody wrote, one a line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from vcore.bench.serve.request import LoadRequest
from vcore.errors import ConfigError

__all__ = ["PromptFile"]

_FORMS = "a text in 'prompt' or 'text', 'prompt_token_ids', 'messages', or 'turns', of which the first is taken"


class PromptFile:
    """Lines of JSON objects, or of plain text."""

    def __init__(self, path: str | Path, *, num_output_tokens: int) -> None:
        """Read the file.

        Args:
            path: the file. If its first line begins with a brace, each line is an object: see `_FORMS`; ``max_tokens``
                or ``output_length`` in it says how much to generate.
            num_output_tokens: for lines that do not say.

        Raises:
            ConfigError: it cannot be read, is empty, or a line is none of these.
        """
        file = Path(os.path.expanduser(path))
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the prompts {file} cannot be read: {error}") from None
        numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        if not numbered:
            raise ConfigError(f"the prompts {file} are none: the file is empty")
        is_json = numbered[0][1].lstrip().startswith("{")
        self._name = file.name
        self._requests = [
            _from_object(line, f"{file.name}, line {number}", num_output_tokens)
            if is_json
            else LoadRequest(text=line, num_output_tokens=num_output_tokens)
            for number, line in numbered
        ]

    @property
    def name(self) -> str:
        """The file's."""
        return self._name

    @property
    def count(self) -> int:
        """Lines."""
        return len(self._requests)

    @property
    def has_conversations(self) -> bool:
        """Whether some lines are conversations."""
        return any(request.messages is not None for request in self._requests)

    def requests(self, count: int, seed: int) -> Iterator[LoadRequest]:
        """In their order, from the beginning again if there are fewer; the seed changes nothing."""
        for index in range(count):
            yield replace(self._requests[index % len(self._requests)])

    @property
    def num_cut(self) -> int:
        """None."""
        return 0

    def recorded_times(self, rate: float | None) -> None:
        """There are none."""


def _from_object(line: str, where: str, num_output_tokens: int) -> LoadRequest:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{where}: found {type(found).__name__}, expected a JSON object")
    wanted = found.get("max_tokens", found.get("output_length", num_output_tokens))
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
        raise ConfigError(f"{where}: {wanted!r} tokens to generate, expected a whole number from 1")
    request = LoadRequest(num_output_tokens=wanted)
    if not _fill(request, found):
        raise ConfigError(f"{where}: no prompt, expected {_FORMS}; there is {', '.join(found)}")
    return request


def _fill(request: LoadRequest, found: dict[str, Any]) -> bool:
    """Whether there was a prompt of any form."""
    turns = found.get("turns")
    text = found.get("prompt", found.get("text", turns[0] if isinstance(turns, list) and turns else None))
    ids, messages = found.get("prompt_token_ids"), found.get("messages")
    if isinstance(text, str) and text:
        request.text = text
    elif isinstance(ids, list) and ids and all(type(one) is int for one in ids):
        request.token_ids = ids
    elif isinstance(messages, list) and messages and all(isinstance(one, dict) for one in messages):
        request.messages = messages
    else:
        return False
    return True
