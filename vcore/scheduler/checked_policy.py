"""`CheckedPolicy`: a scheduling policy behind a check of everything that it answers.

Knows the contract of `SchedulingPolicy` and the core's own order, which serves once the policy has
failed; knows nothing of rows, blocks or the budget. A decision or callback that the policy does not
override is never called: the flags say which are worth preparing for.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from vcore.interfaces.scheduling import QueueingPolicy, RequestView, SchedulingPolicy
from vcore.kv_cache.policy_standing import POLICY_FAULTS, PolicyStanding

__all__ = ["CheckedPolicy"]


class CheckedPolicy:
    """Asks the policy while it is trusted, and the core's own order after that."""

    def __init__(self, policy: SchedulingPolicy, name: str, *, strict: bool) -> None:
        """Trust `policy` for now.

        Args:
            policy: the policy.
            name: what it is called in the log.
            strict: whether a fault raises `vcore.errors.PolicyError`.
        """
        self._policy = policy
        self._standing = PolicyStanding(name, fallback="requests are served by arrival", strict=strict)
        self.trusted = True
        """Whether the policy is still asked."""
        self.queues = isinstance(policy, QueueingPolicy)
        """Whether the policy keeps the waiting requests in order itself."""
        self.ranks_waiting = not self.queues and self._overrides("rank_waiting")
        self.orders_running = self._overrides("order_running")
        self.picks_victim = self._overrides("pick_victim")
        self.displaces = self._overrides("should_displace")
        self.caps_prefill = self._overrides("max_prefill_tokens")
        self.rejects = self._overrides("reject")
        self.hears_admitted = self._overrides("on_admitted")
        self.hears_tokens = self._overrides("on_tokens")
        self.hears_finished = self._overrides("on_finished")
        self.patience = self._patience()
        """`SchedulingPolicy.patience`; None once the policy is not trusted, as all are served by arrival then."""

    @property
    def reorders(self) -> bool:
        """Whether the order of those who wait may change while they do."""
        return self.ranks_waiting or (self.queues and self.trusted)

    @property
    def fault(self) -> str | None:
        """What the policy did wrong, or None."""
        return self._standing.fault

    def waiting_key(self, request: RequestView) -> Any:
        """A sort key; the same for all once the policy is not trusted, so that arrival decides."""
        if not self.trusted:
            return 0
        expected = "a key that compares with itself"
        try:
            key = self._policy.waiting_key(request)
            # A NaN would put the heap out of order without any error.
            usable = bool(key == key)
        except POLICY_FAULTS as error:
            self.standing_lost("waiting_key", expected, error)
            return 0
        if not usable or key is None:
            self._answered("waiting_key", expected, key)
            return 0
        return key

    def waiting_window(self) -> int:
        """How many waiting requests `rank_waiting` is shown at most."""
        size = self._ask("waiting_window", lambda: self._policy.waiting_window)
        if isinstance(size, int) and size >= 1:
            return size
        self._answered("waiting_window", "a number of at least 1", size)
        return SchedulingPolicy.waiting_window

    def rank_waiting(self, requests: Sequence[RequestView], now: float) -> list[int] | None:
        """A permutation of the indices of `requests`, soonest first, or None for the order they have."""
        return self._permutation("rank_waiting", len(requests), lambda: self._policy.rank_waiting(requests, now))

    def on_waiting(self, request: RequestView) -> None:
        """See `QueueingPolicy.on_waiting`."""
        policy = self._queueing()
        if policy is not None:
            self._ask("on_waiting", lambda: policy.on_waiting(request))

    def on_left(self, request: RequestView) -> None:
        """See `QueueingPolicy.on_left`."""
        policy = self._queueing()
        if policy is not None:
            self._ask("on_left", lambda: policy.on_left(request))

    def walk(self, now: float) -> Iterator[RequestView]:
        """The policy's walk through the waiting requests, whose items are not checked."""
        policy = self._queueing()
        if policy is not None:
            answer = self._ask("walk", lambda: policy.walk(now))
            if isinstance(answer, Iterator):
                return answer
            self.walk_is_wrong("an iterator", answer)
        return iter(())

    def next_of_walk(self, walk: Iterator[RequestView]) -> RequestView | None:
        """The next item of a walk, whatever it is; None at the end."""
        if not self.trusted:
            return None
        try:
            return next(walk, None)
        except POLICY_FAULTS as error:
            self.standing_lost("walk", "no exception", error)
            return None

    def close_walk(self, walk: Iterator[RequestView]) -> None:
        """The rest of a walk is not wanted."""
        close = getattr(walk, "close", None)
        if close is not None:
            self._ask("walk", close)

    def walk_is_wrong(self, expected: str, found: object) -> None:
        """The policy's walk is not one through all who wait."""
        self._answered("walk", expected, found)

    def order_running(self, running: Sequence[RequestView], now: float) -> list[int] | None:
        """A permutation of the indices of `running`, or None for the order of admission."""
        return self._permutation("order_running", len(running), lambda: self._policy.order_running(running, now))

    def pick_victim(self, running: Sequence[RequestView]) -> int:
        """The index of the running request to preempt."""
        if self.picks_victim:
            count = len(running)
            answer = self._ask("pick_victim", lambda: self._policy.pick_victim(list(running)))
            index = _index(answer)
            if index is not None and 0 <= index < count:
                return index
            self._answered("pick_victim", f"an index from 0 to {count - 1}", answer)
        return max(range(len(running)), key=lambda i: running[i].arrival_index)

    def should_displace(self, waiting: RequestView, victim: RequestView) -> bool:
        """Whether `victim` should make room for `waiting`."""
        if not self.displaces:
            return False
        answer = self._ask("should_displace", lambda: self._policy.should_displace(waiting, victim))
        if isinstance(answer, bool | np.bool_):
            return bool(answer)
        self._answered("should_displace", "True or False", answer)
        return False

    def max_prefill_tokens(self, num_running: int, num_waiting: int) -> int | None:
        """A cap on prefill tokens in this step, or None."""
        if not self.caps_prefill:
            return None
        answer = self._ask("max_prefill_tokens", lambda: self._policy.max_prefill_tokens(num_running, num_waiting))
        if answer is None:
            return None
        cap = _index(answer)
        if cap is not None and cap >= 0:
            return cap
        self._answered("max_prefill_tokens", "None or a number of tokens, at least 0", answer)
        return None

    def reject(self, request: RequestView) -> str | None:
        """A reason to refuse the request, or None."""
        if not self.rejects:
            return None
        answer = self._ask("reject", lambda: self._policy.reject(request))
        if answer is None or (isinstance(answer, str) and answer):
            return answer
        self._answered("reject", "None or a reason", answer)
        return None

    def on_admitted(self, requests: list[RequestView]) -> None:
        """See `SchedulingPolicy.on_admitted`."""
        if self.hears_admitted and requests:
            self._ask("on_admitted", lambda: self._policy.on_admitted(requests))

    def on_tokens(self, requests: list[RequestView], num_tokens: list[int]) -> None:
        """See `SchedulingPolicy.on_tokens`."""
        if self.hears_tokens and requests:
            self._ask("on_tokens", lambda: self._policy.on_tokens(requests, num_tokens))

    def on_finished(self, requests: list[RequestView]) -> None:
        """See `SchedulingPolicy.on_finished`."""
        if self.hears_finished and requests:
            self._ask("on_finished", lambda: self._policy.on_finished(requests))

    def standing_lost(self, call: str, expected: str, error: BaseException) -> None:
        """The policy, or something that it answered, raised `error`."""
        self._stop_asking()
        self._standing.lose(call, expected=expected, error=error)

    def _answered(self, call: str, expected: str, found: object) -> None:
        """The policy answered nonsense; nothing happens if it raised before that."""
        self._stop_asking()
        self._standing.lose(call, expected=expected, found=found)

    def _queueing(self) -> QueueingPolicy | None:
        return self._policy if self.trusted and isinstance(self._policy, QueueingPolicy) else None

    def _patience(self) -> int | None:
        value = self._ask("patience", lambda: self._policy.patience)
        if value is None or (isinstance(value, int) and value >= 1):
            return value
        self._answered("patience", "None or a number of at least 1", value)
        return None

    def _stop_asking(self) -> None:
        self.trusted = False
        self.patience = None
        self.ranks_waiting = self.orders_running = self.picks_victim = self.displaces = False
        self.caps_prefill = self.rejects = False
        self.hears_admitted = self.hears_tokens = self.hears_finished = False

    def _ask(self, call: str, question: Callable[[], object]) -> object:
        """The policy's answer; None if it raised, and then it has lost its standing."""
        try:
            return question()
        except POLICY_FAULTS as error:
            self.standing_lost(call, "no exception", error)
            return None

    def _permutation(self, call: str, count: int, question: Callable[[], object]) -> list[int] | None:
        answer = self._ask(call, question)
        if answer is None:
            return None
        expected = f"None or a permutation of range({count})"
        try:
            if len(answer) == count:  # type: ignore[arg-type]  # whatever it is, it was to be a sequence
                order = [operator.index(index) for index in islice(answer, count + 1)]  # type: ignore[call-overload]  # likewise
                if sorted(order) == list(range(count)):
                    return order
        except POLICY_FAULTS as error:
            self.standing_lost(call, expected, error)
            return None
        self._answered(call, expected, answer)
        return None

    def _overrides(self, name: str) -> bool:
        method = getattr(self._policy, name)
        return getattr(method, "__func__", method) is not getattr(SchedulingPolicy, name)


def _index(value: object) -> int | None:
    try:
        return operator.index(value)  # type: ignore[arg-type]  # the point is to find out
    except TypeError:
        return None
