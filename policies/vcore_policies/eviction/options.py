"""The options of the eviction policies."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vcore.config import PluginOptions

__all__ = [
    "CostAwareOptions",
    "LFUOptions",
    "PrefixAwareOptions",
    "S3FIFOOptions",
    "SLRUOptions",
    "TTLPinnedOptions",
]

Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class LFUOptions(PluginOptions):
    """Options of `lfu`."""

    half_life: Annotated[float, Field(ge=1e-6)] | None = None
    """Requests after which a use counts half; None: a use counts for ever."""
    remembered: Annotated[int, Field(ge=0)] = 262_144
    """Contents whose counts are kept, cached or not; about 200 bytes each."""


class SLRUOptions(PluginOptions):
    """Options of `slru`."""

    protected: Share = 0.8
    """Share of the unused blocks that are kept for those that were used more than once."""


class S3FIFOOptions(PluginOptions):
    """Options of `s3fifo`."""

    small: Share = 0.1
    """Share of the blocks that the queue of newcomers may have."""


class TTLPinnedOptions(PluginOptions):
    """Options of `ttl`."""

    most_pinned: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Share of all blocks that requests may pin; what they ask for beyond it is not kept."""


class CostAwareOptions(PluginOptions):
    """Options of `cost_aware`."""

    balance: Annotated[int, Field(ge=1)] = 32_768
    """The position, in tokens, at which attention to what is before it costs as much as all else of a token: 2 N /
    (4 L d) of a model with N parameters and L layers of d features; about 30,000 for 8B parameters."""


class PrefixAwareOptions(PluginOptions):
    """Options of `prefix_aware`. None needs to be set for a workload: what depends on it is learned."""

    ghosts: Annotated[int, Field(ge=1, le=64)] = 4
    """Evicted contents that are remembered for each cached block; about 200 bytes each."""
    least_ghosts: Annotated[int, Field(ge=0)] = 16_384
    """Evicted contents that are remembered however few blocks are cached."""
    half_life: Annotated[float, Field(gt=0.0)] = 32.0
    """What was learned counts half after so many times the cache's blocks were evicted."""
