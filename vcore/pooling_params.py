"""`PoolingParams`: what one request wants of its embedding. Checked when made, frozen after."""

from __future__ import annotations

import operator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from vcore.params_error import params_error

__all__ = ["PoolingMode", "PoolingParams"]

PoolingMode = Literal["last", "mean"]
"""How the hidden states of a prompt become one vector: that of its last token, or the mean over all of its tokens."""


def _integer(value: object) -> object:
    """`value` as an int, if it is one of another kind, such as numpy's."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return value
    try:
        return operator.index(value)
    except TypeError:  # an array, say
        return value


Integer = Annotated[int, BeforeValidator(_integer)]


class PoolingParams(BaseModel):
    """What one request wants of its embedding.

    Raises:
        RequestError: a value is of another type or out of range, or a name is unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    normalize: bool | None = None
    """Whether the vector is scaled to length 1; None: as the checkpoint says, and where it says nothing, yes."""
    dimensions: Annotated[Integer, Field(ge=1)] | None = None
    """Keep so many leading features, before the vector is normalised: for models that were trained for it (Kusupati et
    al., 2022, arXiv:2205.13147). None keeps all."""
    priority: Integer = 0
    """For policies that use it: lower is more urgent."""
    tenant: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Who asks, for scheduling policies that share between tenants."""
    cache_salt: str | None = None
    """Only requests with the same salt share cached prefixes."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise params_error(PoolingParams, error) from None
