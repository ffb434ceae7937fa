"""What can be set of each policy. Imports only pydantic and vcore.config."""

from typing import Annotated

from pydantic import Field
from vcore.config import PluginOptions


class AdaptiveLIFOOptions(PluginOptions):
    """Of `adaptive_lifo`."""

    standing_s: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1.0
    """Seconds for which one may wait before the queue counts as standing, and the newest goes first."""
    patience: Annotated[int, Field(ge=1)] | None = 128
    """Most admissions in a row that pass over the request that arrived first of those that wait; None: no limit."""


class ARCOptions(PluginOptions):
    """Of `arc`."""

    ghosts: Annotated[float, Field(gt=0.0, le=16.0)] = 1.0
    """Evicted contents that are remembered, in times of the cache's blocks; about 200 bytes each."""
