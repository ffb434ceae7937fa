"""`CheckedRouting`: a routing policy behind a check of everything that it answers.

Knows the contract of `RoutingPolicy`; does not know what a replica is.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

from vcore.interfaces.routing import ArrivalView, ReplicaView, RoutingPolicy
from vcore.kv_cache.policy_standing import POLICY_FAULTS, PolicyStanding

__all__ = ["CheckedRouting"]


class CheckedRouting:
    """Asks the policy until its first fault; from then on replicas take turns."""

    __slots__ = ("_looks", "_next", "_policy", "standing")

    def __init__(self, policy: RoutingPolicy, name: str, *, strict: bool) -> None:
        """Trust `policy` for now.

        Args:
            policy: the policy.
            name: what it is called in the log.
            strict: whether a fault raises `vcore.errors.PolicyError`.

        Raises:
            PolicyError: its `looks_at_replicas` cannot be read, in strict mode.
        """
        self._policy = policy
        self._next = 0
        self.standing = PolicyStanding(name, fallback="replicas take turns", strict=strict)
        self._looks = self._ask_whether_it_looks()

    @property
    def looks_at_replicas(self) -> bool:
        """Whether replicas must be brought up to the moment before `choose`."""
        return self._looks and self.standing.trusted

    def choose(self, request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
        """See `RoutingPolicy.choose`; what comes out is an index of `replicas`.

        Raises:
            PolicyError: the policy failed, in strict mode.
        """
        if self.standing.trusted:
            chosen = self._ask(request, replicas)
            if chosen is not None:
                return chosen
        chosen = self._next % len(replicas)
        self._next = chosen + 1
        return chosen

    def _ask_whether_it_looks(self) -> bool:
        try:
            return bool(self._policy.looks_at_replicas)
        except POLICY_FAULTS as error:
            self.standing.lose("looks_at_replicas", expected="True or False", error=error)
            return False

    def _ask(self, request: ArrivalView, replicas: Sequence[ReplicaView]) -> int | None:
        """The policy's answer; None if it is none."""
        expected = f"the index of one of {len(replicas)} replicas, from 0 to {len(replicas) - 1}"
        try:
            answer = self._policy.choose(request, replicas)
            index = operator.index(answer)
        except POLICY_FAULTS as error:
            self.standing.lose("choose", expected=expected, error=error)
            return None
        if not 0 <= index < len(replicas):
            self.standing.lose("choose", expected=expected, found=answer)
            return None
        return index
