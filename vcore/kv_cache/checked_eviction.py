"""`CheckedEviction`: an eviction policy behind a check of everything that it answers.

Knows the contract of `EvictionPolicy`; does not know how the pool keeps its blocks.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Sequence
from itertools import islice

from vcore.interfaces.eviction import EvictionPolicy
from vcore.kv_cache.policy_standing import POLICY_FAULTS, PolicyStanding

__all__ = ["CheckedEviction"]


class CheckedEviction:
    """Passes events on and checks victims, until the policy's first fault."""

    __slots__ = ("_policy", "standing")

    def __init__(self, policy: EvictionPolicy, name: str, *, strict: bool) -> None:
        """Trust `policy` for now.

        Args:
            policy: the policy.
            name: what it is called in the log.
            strict: whether a fault raises `vcore.errors.PolicyError`.
        """
        self._policy = policy
        self.standing = PolicyStanding(name, fallback="the block that is free for longest goes first", strict=strict)

    def on_insert(self, block_ids: Sequence[int]) -> None:
        """See `EvictionPolicy.on_insert`."""
        self._tell("on_insert", self._policy.on_insert, block_ids)

    def on_hit(self, block_ids: Sequence[int]) -> None:
        """See `EvictionPolicy.on_hit`."""
        self._tell("on_hit", self._policy.on_hit, block_ids)

    def on_free(self, block_ids: Sequence[int]) -> None:
        """See `EvictionPolicy.on_free`."""
        self._tell("on_free", self._policy.on_free, block_ids)

    def on_evict(self, block_ids: Sequence[int]) -> None:
        """See `EvictionPolicy.on_evict`."""
        self._tell("on_evict", self._policy.on_evict, block_ids)

    def pick_victims(self, count: int, unused: Collection[int]) -> list[int] | None:
        """Ask for victims and check them.

        Args:
            count: how many.
            unused: the cached blocks that nobody uses, the only ones that may be picked.

        Returns:
            `count` different members of `unused`; None if the policy is not trusted (any more).
        """
        if not self.standing.trusted:
            return None
        expected = f"{count} different ids of cached blocks that nobody uses"
        try:
            answer = self._policy.pick_victims(count)
            victims = [operator.index(block_id) for block_id in islice(answer, count + 1)]
        except POLICY_FAULTS as error:
            self.standing.lose("pick_victims", expected=expected, error=error)
            return None
        if len(victims) != count or len(set(victims)) != count or not all(block_id in unused for block_id in victims):
            self.standing.lose("pick_victims", expected=expected, found=victims)
            return None
        return victims

    def _tell(self, call: str, callback: Callable[[Sequence[int]], None], block_ids: Sequence[int]) -> None:
        if not self.standing.trusted:
            return
        try:
            callback(block_ids)
        except POLICY_FAULTS as error:
            self.standing.lose(call, expected="no exception", error=error)
