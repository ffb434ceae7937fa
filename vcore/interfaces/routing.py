"""What a routing policy implements: which replica of a fleet a request is sent to when it arrives.

A policy gets read-only views and answers with an index, which the fleet checks. One that raises or answers nonsense
is named once, and from then on requests go to the replicas by turns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vcore.interfaces.request_wishes import RequestWishes

__all__ = ["ArrivalView", "ReplicaView", "RoutingContext", "RoutingPolicy"]


class ArrivalView(RequestWishes, Protocol):
    """A request that arrives, as a policy sees it: read only. What it says is what an engine would be told of it."""

    @property
    def arrival_time(self) -> float:
        """Seconds; never less than that of the request before."""
        ...

    @property
    def max_tokens(self) -> int:
        """The most tokens that it may generate."""
        ...

    def prefix_hashes(self) -> Sequence[bytes]:
        """One hash for each full block of the prompt.

        Each stands for all tokens up to the end of its block: two requests whose hashes at one place are equal have
        equal hashes, and may share blocks, up to there.
        """
        ...


class ReplicaView(Protocol):
    """A replica as a policy sees it: read only, and live, which is to say as it is when the request arrives."""

    @property
    def num_unfinished(self) -> int:
        """Requests that were sent to it and have not ended."""
        ...

    @property
    def num_running(self) -> int:
        """Those of them that are in its batch; the others wait."""
        ...

    @property
    def num_free_blocks(self) -> int:
        """Blocks of its cache that no request uses, whatever they hold."""
        ...

    def num_cached_tokens(self, request: ArrivalView) -> int:
        """Tokens of the beginning of a request's prompt that it has cached; looked up when asked."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingContext:
    """What the fleet tells a routing policy when it builds it."""

    num_replicas: int
    """At least 2: where there is one, nobody is asked."""
    max_num_seqs: int
    """Requests that a replica runs at the same time."""
    num_blocks: int
    """Blocks of a replica's cache: what `num_free_blocks` is at most."""
    block_size: int
    """Tokens a block holds."""
    seed: int = 0
    """Of whatever is drawn, so that a simulation can be repeated."""


class RoutingPolicy(ABC):
    """A way of choosing a replica for each request (API 1.0).

    The plugin's `load` is called with ``options`` and ``context`` (a `RoutingContext`). A request is routed once, when
    it arrives, and stays where it was sent.
    """

    looks_at_replicas: bool = True
    """Whether `choose` asks replicas anything. Where it does not, they need not be brought up to the moment for it,
    which saves a simulation time; what it would see then is of an earlier moment."""

    @abstractmethod
    def choose(self, request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
        """The index of the replica that `request` is sent to. Called once a request, in order of arrival.

        Args:
            request: that arrives.
            replicas: all `num_replicas` of them, in the same order in every call.
        """
