"""`params_error`: what pydantic finds wrong with a request's parameters, as a `RequestError` that names the one."""

from __future__ import annotations

import re

from pydantic import BaseModel, ValidationError

from vcore.errors import RequestError
from vcore.suggestions import did_you_mean

__all__ = ["params_error"]


def params_error(params: type[BaseModel], error: ValidationError) -> RequestError:
    """The first thing that is wrong with values given to `params`."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, RequestError):  # of a part that words its own
        return cause
    name, location = params.__name__, ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        names = list(params.model_fields)
        hint = did_you_mean(location, names, most=1) or f"; known: {', '.join(names)}"
        return RequestError(f"{name} has no {location!r}{hint}", param=location)
    message = first["msg"].removeprefix("Value error, ")
    if not location:
        return RequestError(f"{name}: {message}", param=_named(message, params))
    return RequestError(f"{name}.{location}: {message}, got {first['input']!r:.200}", param=location)


def _named(message: str, params: type[BaseModel]) -> str | None:
    """The field that a message begins with, as those about several fields do."""
    first = re.match(r"\w+", message)
    return first[0] if first is not None and first[0] in params.model_fields else None
