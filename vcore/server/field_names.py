"""`FieldNames`: what a client calls the fields that an error names in the engine's words, or in another endpoint's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vcore.errors import RequestError
from vcore.server.errors import ApiError

__all__ = ["FieldNames"]

_OWN_CLASS = re.compile(r"\A(?:Sampling|Pooling)Params(?:\.|: )")
"""What messages begin with that are about the parameters as a whole, or about one of them."""


@dataclass(frozen=True, slots=True)
class FieldNames:
    """The fields of one request, beside the fields that are made of them."""

    rules: tuple[tuple[str, str], ...] = ()
    """The beginnings of names, as regular expressions, and what stands there instead. The first that fits counts; it
    fits whole words only."""

    def of_form(self, field: str | None) -> FieldNames:
        """The same, with the field of the client's that asked for the form which its text must have, if one did."""
        if field is None:
            return self
        return FieldNames((*self.rules, (r"structured_output(?:\.\w+)*", field)))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """What the block raises about the request comes out in the client's words."""
        try:
            yield
        except RequestError as error:
            message, param = self.reworded(str(error), error.param)
            if (message, param) == (str(error), error.param):
                raise
            raise type(error)(message, param=param) from error
        except ApiError as error:
            error.message, error.param = self.reworded(error.message, error.param)
            raise

    def reworded(self, message: str, param: str | None) -> tuple[str, str | None]:
        """An error's message and the field that it is about, as the client knows them."""
        message = _OWN_CLASS.sub("", message, count=1)
        found = None if param is None else self._find(param)
        if param is None or found is None:
            return message, param
        if not param.isalpha():  # what looks like a word may stand in the message as one
            message = message.replace(param, found)
        return message, found

    def _find(self, param: str) -> str | None:
        for rule, instead in self.rules:
            if match := re.match(rf"(?:{rule})(?!\w)", param):
                return match.expand(instead) + param[match.end() :]
        return None
