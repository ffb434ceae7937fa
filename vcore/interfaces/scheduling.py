"""What a scheduling policy implements. A policy answers questions about order; the scheduler acts.

A policy never sees a `Request`, a block or the budget: it gets read-only views and returns a key, an
order or a choice, which the scheduler checks. One that raises or answers nonsense is named once, and
from then on the core's own order (arrival) serves in its place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vcore.interfaces.request_wishes import RequestWishes

__all__ = ["QueueingPolicy", "RequestView", "SchedulingContext", "SchedulingPolicy"]


class RequestView(RequestWishes, Protocol):
    """A request as a policy sees it: live and read only."""

    @property
    def request_id(self) -> str: ...
    @property
    def arrival_index(self) -> int:
        """Counts up by one a request; breaks every tie."""
        ...

    @property
    def arrival_time(self) -> float:
        """Seconds, on the monotonic clock, as `now` of the decisions that get it."""
        ...

    @property
    def num_tokens(self) -> int:
        """Prompt and generated tokens so far."""
        ...

    @property
    def num_computed_tokens(self) -> int: ...
    @property
    def num_output_tokens(self) -> int: ...
    @property
    def max_tokens(self) -> int:
        """The most tokens that it may generate; 0 for one that embeds, which ends with its prompt."""
        ...

    @property
    def num_preemptions(self) -> int: ...
    def num_cached_tokens(self) -> int:
        """Tokens of its prefix that are cached now. Looked up when asked, memoised until the cache changes."""
        ...

    def prefix_hashes(self) -> Sequence[bytes]:
        """One hash for each full block of the tokens so far; none without a prefix cache.

        Each stands for all tokens up to the end of its block: two requests whose hashes at one place are equal have
        equal hashes, and may share blocks, up to there.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingContext:
    """What the core tells a scheduling policy when it builds it."""

    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    num_blocks: int
    chunked_prefill: bool = True
    """Whether a prompt may be computed over several steps; if not, a cap on prefill tokens holds longer prompts up."""


class SchedulingPolicy(ABC):
    """An order of requests (API 1.0).

    The plugin's `load` is called with ``options`` and ``context`` (a `SchedulingContext`). Only
    `waiting_key` must be written. A callback or decision that a policy does not override costs nothing.
    """

    @abstractmethod
    def waiting_key(self, request: RequestView) -> Any:  # any type that compares with itself
        """A sort key, lower is sooner, taken when a request starts to wait (also after a preemption).

        Ties are broken by arrival.
        """

    def rank_waiting(self, requests: Sequence[RequestView], now: float) -> Sequence[int] | None:
        """An order of the waiting requests that changes with time, or None to stay with `waiting_key`.

        Args:
            requests: the first `waiting_window` waiting requests by `waiting_key`.
            now: seconds.

        Returns:
            A permutation of ``range(len(requests))``, soonest first.
        """
        return None

    waiting_window: int = 64
    """How many waiting requests `rank_waiting` is shown at most.

    As many are taken off a heap and put back in each step, 0.7 us each, whatever is answered. A `QueueingPolicy` sees
    all who wait, and costs what it looks at.
    """

    patience: int | None = None
    """Most admissions in a row that pass over the request that arrived first of those that wait; then it is its turn.

    The core sees to it, whatever the policy's order. So a request that finds `n` older ones waiting is passed by at
    most ``(n + 1) * patience`` admissions, and `patience` more each time that one of those is preempted. None: no
    turns. Beside that, a request whose next block is being computed by another in this very step is passed in it.
    """

    max_overtaking_s: float | None = None
    """No request runs before one that waits and arrived more than so many seconds earlier; None if that is not so.

    What the policy's own order holds to, for users to know and tests to check; the core does nothing about it.
    """

    def order_running(self, running: Sequence[RequestView], now: float) -> Sequence[int] | None:
        """The order in which running requests take from the token budget; None for the order of admission.

        Asked only when the budget does not suffice for all of them.
        """
        return None

    def pick_victim(self, running: Sequence[RequestView]) -> int:
        """The index of the running request to preempt when blocks run out; by default the latest to arrive."""
        return max(range(len(running)), key=lambda i: running[i].arrival_index)

    def should_displace(self, waiting: RequestView, victim: RequestView) -> bool:
        """Whether `victim`, running, is to be preempted so that `waiting` can run. Asked only when there is no room.

        `waiting` is the first in the queue, and `victim` is what `pick_victim` names. After a refusal it is asked
        again once others run or wait, or in the next step if the policy has a `rank_waiting`.
        """
        return False

    def max_prefill_tokens(self, num_running: int, num_waiting: int) -> int | None:
        """A cap on prefill tokens in this step; None for none beyond the token budget."""
        return None

    def reject(self, request: RequestView) -> str | None:
        """A reason to refuse the request on arrival, or None."""
        return None

    def on_admitted(self, requests: Sequence[RequestView]) -> None:
        """These started to run in this step."""

    def on_tokens(self, requests: Sequence[RequestView], num_tokens: Sequence[int]) -> None:
        """So many tokens of each were computed in this step."""

    def on_finished(self, requests: Sequence[RequestView]) -> None:
        """These finished, for whatever reason."""


class QueueingPolicy(SchedulingPolicy):
    """A policy that keeps the waiting requests in order itself, for orders that change while requests wait.

    It is told of each request that begins or ceases to wait, and walks through them from the front when there may be
    room. `waiting_key` and `rank_waiting` are not asked.
    """

    @abstractmethod
    def on_waiting(self, request: RequestView) -> None:
        """It waits from now on: it arrived, or was preempted."""

    @abstractmethod
    def on_left(self, request: RequestView) -> None:
        """It waits no more: it was admitted, or ended."""

    @abstractmethod
    def walk(self, now: float) -> Iterator[RequestView]:
        """The waiting requests, soonest first, each once.

        The core takes one after the other until one finds no room, and closes the iterator then. Before it asks for the
        next it says `on_left` if it admitted the one before; otherwise that one waits on, and others may pass in this
        step. `on_left` may come for any request meanwhile. A walk that ends must have named all that wait.

        Args:
            now: seconds.
        """

    def waiting_key(self, request: RequestView) -> int:
        """Not asked."""
        return request.arrival_index
