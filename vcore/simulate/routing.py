"""Routers: which replica a request of a fleet is sent to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol

import numpy as np

from vcore.simulate.virtual_prompt import VirtualPrompt

__all__ = ["ROUTERS", "Routable", "Router", "Routing"]

_SLACK = 1.5
"""How many times the mean load, rounded up, a replica may have and still be chosen for what it has cached."""


class Routing(StrEnum):
    """A way of choosing."""

    ROUND_ROBIN = "round_robin"
    """One after another."""
    LEAST_LOADED = "least_loaded"
    """The one with the fewest requests that have not ended; of equals the first."""
    POWER_OF_TWO = "power_of_two"
    """The less loaded of two that are drawn (M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing",
    IEEE TPDS 12(10), 2001)."""
    PREFIX_AWARE = "prefix_aware"
    """The one that has the most of the prompt cached, of those whose load is at most 1.5 times the mean, rounded up; of
    equals the least loaded."""


class Routable(Protocol):
    """What routers see of a replica, as of now."""

    @property
    def num_unfinished(self) -> int:
        """Requests that were sent to it and have not ended."""
        ...

    def num_cached_tokens(self, prompt: VirtualPrompt) -> int:
        """Tokens of the beginning of a prompt that it has cached."""
        ...


class Router(Protocol):
    """Chooses a replica for each request."""

    looks: bool
    """Whether it looks at replicas, so that they must be as of now."""

    def choose(self, prompt: VirtualPrompt, replicas: Sequence[Routable]) -> int:
        """The index of one of `replicas`."""
        ...


class RoundRobin:
    """See `Routing.ROUND_ROBIN`."""

    looks = False

    def __init__(self, seed: int) -> None:
        self._count = -1

    def choose(self, prompt: VirtualPrompt, replicas: Sequence[Routable]) -> int:
        self._count += 1
        return self._count % len(replicas)


class LeastLoaded:
    """See `Routing.LEAST_LOADED`."""

    looks = True

    def __init__(self, seed: int) -> None:
        """Nothing is drawn."""

    def choose(self, prompt: VirtualPrompt, replicas: Sequence[Routable]) -> int:
        return min(range(len(replicas)), key=lambda index: replicas[index].num_unfinished)


class PowerOfTwo:
    """See `Routing.POWER_OF_TWO`."""

    looks = True

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def choose(self, prompt: VirtualPrompt, replicas: Sequence[Routable]) -> int:
        if len(replicas) == 1:
            return 0
        drawn: list[int] = self._rng.choice(len(replicas), size=2, replace=False).tolist()
        return min(drawn, key=lambda index: replicas[index].num_unfinished)


class PrefixAware:
    """See `Routing.PREFIX_AWARE`."""

    looks = True

    def __init__(self, seed: int) -> None:
        """Nothing is drawn."""

    def choose(self, prompt: VirtualPrompt, replicas: Sequence[Routable]) -> int:
        loads = [replica.num_unfinished for replica in replicas]
        # The request itself counts, so that somebody may always take it.
        most = -(-_SLACK * (sum(loads) + 1) // len(loads))
        allowed = [index for index, load in enumerate(loads) if load < most]
        return max(allowed, key=lambda index: (replicas[index].num_cached_tokens(prompt), -loads[index], -index))


ROUTERS: dict[Routing, Callable[[int], Router]] = {
    Routing.ROUND_ROBIN: RoundRobin,
    Routing.LEAST_LOADED: LeastLoaded,
    Routing.POWER_OF_TWO: PowerOfTwo,
    Routing.PREFIX_AWARE: PrefixAware,
}
"""What makes each, from a seed."""
