"""Numbers of requests, within the bounds that the engine can carry."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

__all__ = ["Count", "Int32", "Natural", "Real", "Seed", "TokenId", "Whole"]

_INT32_MAX = 2**31 - 1
_INT64_MAX = 2**63 - 1


def _whole(value: Any) -> Any:  # whatever JSON holds
    """JSON has one kind of number, so that 16.0 is whole."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
"""An integer, also written as 16.0."""
Count = Annotated[Whole, Field(ge=1, le=_INT32_MAX)]
"""At least 1."""
Natural = Annotated[Whole, Field(ge=0, le=_INT32_MAX)]
"""At least 0."""
Int32 = Annotated[Whole, Field(ge=-_INT32_MAX, le=_INT32_MAX)]
Seed = Annotated[Whole, Field(ge=-_INT64_MAX, le=_INT64_MAX)]
TokenId = Annotated[Whole, Field(ge=0, le=_INT32_MAX)]
Real = Annotated[float, Field(allow_inf_nan=False)]
"""A finite number."""
