"""What can be set of each scheduling policy. Imports only pydantic and vcore.config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vcore.config import PluginOptions

__all__ = [
    "EarliestDeadlineOptions",
    "FairShareOptions",
    "MultilevelFeedbackOptions",
    "PrefixAwareOptions",
    "PriorityOptions",
    "ShortestJobOptions",
    "ShortestRemainingOptions",
]

Seconds = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Weight = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class PriorityOptions(PluginOptions):
    """Of `PriorityPolicy`."""

    ageing_s: Seconds | None = 60.0
    """Seconds of waiting that weigh as much as one level of priority; None: waiting weighs nothing, and a request may
    wait for ever."""
    max_level: Annotated[int, Field(ge=0, le=2**31)] = 100
    """Priorities count from -max_level to max_level; what is beyond counts as the nearer of the two."""


class _Patient(PluginOptions):
    patience: Count | None = 128
    """Most admissions in a row that pass over the request that has been there for longest; None: no limit."""


class _Costed(_Patient):
    input_weight: Weight = 1.0
    """What a token of the prompt costs."""
    output_weight: Weight = 2.0
    """What a generated token costs."""


class ShortestJobOptions(_Costed):
    """Of `ShortestJobPolicy`."""

    trust_requests: bool = True
    """Whether `SamplingParams.expected_tokens` is believed; otherwise all lengths are predicted."""
    initial_tokens: Count = 128
    """How many tokens a request is taken to generate while nothing is known."""
    max_classes: Annotated[int, Field(ge=4)] = 4096
    """Most classes of requests that the predictor remembers; each request is of four."""


class ShortestRemainingOptions(ShortestJobOptions):
    """Of `ShortestRemainingPolicy`."""

    displace_ratio: Annotated[float, Field(ge=1.0, allow_inf_nan=False)] | None = 4.0
    """A running request makes room for a waiting one if it has at least so many times as much left; None: never."""
    max_displacements: Annotated[int, Field(ge=0)] = 1
    """How often a request that was preempted may be preempted for this once more."""


class EarliestDeadlineOptions(_Patient):
    """Of `EarliestDeadlinePolicy`."""

    ttft_target_s: Seconds = 2.0
    """Seconds to the first token, for requests that state no target."""
    itl_target_s: Seconds = 0.1
    """Mean seconds between tokens, for requests that state no target."""
    defer_late: bool = True
    """Whether requests that can not meet their deadline any more wait behind those that can."""
    prefill_tokens_per_s: Weight | None = None
    """How fast prompts are computed; None: learned from full steps."""
    prefill_share: Annotated[float, Field(gt=0.0, le=1.0)] | None = 0.5
    """Share of the least ITL target that the prompts of one step may take while others generate; None: no limit."""


class FairShareOptions(_Patient):
    """Of `FairSharePolicy`."""

    patience: Count | None = 512
    """As above. Each such turn goes by arrival instead of by share, so it should be rare."""
    input_weight: Weight = 1.0
    """What a token of the prompt costs its tenant."""
    output_weight: Weight = 2.0
    """What a generated token costs its tenant."""
    weights: dict[str, Weight] = Field(default_factory=dict)
    """By tenant: its share, where others have 1."""
    max_tenants: Count = 10_000
    """Most tenants without a request that are remembered."""


class PrefixAwareOptions(_Patient):
    """Of `PrefixAwarePolicy`."""

    order: Literal["longest", "depth_first"] = "longest"
    """`longest`: the longest cached prefix first. `depth_first`: all that share a prefix one after another, the prefix
    that most wait for first."""


class MultilevelFeedbackOptions(_Costed):
    """Of `MultilevelFeedbackPolicy`."""

    quantum: Weight = 512.0
    """Service after which a request leaves the first level."""
    growth: Annotated[float, Field(gt=1.0, le=1024.0)] = 2.0
    """How many times longer each level lasts than the one before."""
    num_levels: Annotated[int, Field(ge=1, le=64)] = 6
    """How many levels there are."""
    max_displacements: Annotated[int, Field(ge=0)] = 1
    """How often a request that was preempted may be preempted for one of a better level once more."""
