"""What a scheduling policy implements. A policy answers questions about order; the scheduler acts.

A policy never sees a `Request`, a block or the budget: it gets read-only views and returns a key, an
order or a choice, which the scheduler checks. One that raises or answers nonsense is named once, and
from then on the core's own order (arrival) serves in its place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["RequestView", "SchedulingContext", "SchedulingPolicy"]


class RequestView(Protocol):
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
    def priority(self) -> int:
        """Lower is more urgent; 0 unless the request says otherwise."""
        ...

    @property
    def num_prompt_tokens(self) -> int: ...
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
        """The most tokens that it may generate."""
        ...

    @property
    def num_preemptions(self) -> int: ...
    def num_cached_tokens(self) -> int:
        """Tokens of its prefix that are cached now. Looked up when asked, memoised until the cache changes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingContext:
    """What the core tells a scheduling policy when it builds it."""

    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    num_blocks: int


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

    waiting_window: int = 256
    """How many waiting requests `rank_waiting` is shown at most."""

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
