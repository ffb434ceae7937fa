"""The options of the routing policies."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vcore.config import PluginOptions

__all__ = ["PowerOfTwoOptions", "PrefixAwareRoutingOptions"]


class PowerOfTwoOptions(PluginOptions):
    """Options of `power_of_two`."""

    choices: Annotated[int, Field(ge=1)] = 2
    """Replicas that are drawn for each request; 1 is a random one, as many as there are is `least_loaded`."""


class PrefixAwareRoutingOptions(PluginOptions):
    """Options of `prefix_aware`."""

    slack: Annotated[float, Field(ge=1.0, le=1e6)] = 1.5
    """How many times the mean number of unfinished requests, rounded up, a replica may have and still be chosen for
    what it has cached. 1 balances loads first; a large number goes by the cache alone."""
