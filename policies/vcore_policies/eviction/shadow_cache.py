"""`ShadowCache`: what a cache would hold, had it always evicted by one order; contents only, no blocks."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["LastUse", "ShadowCache"]


@dataclass(frozen=True, slots=True)
class LastUse:
    """What an order goes by."""

    since: int
    """When it was, in requests."""
    uses: int
    """Uses of the content so far."""
    kind: int
    """The class of the content since, as `reuse_class` has it."""


@dataclass(slots=True)
class _Member:
    use: LastUse
    parent: bytes | None
    num_children: int = 0


class ShadowCache:
    """Contents by a key of their last use, the smallest goes first, leaves only; O(log n) an event, amortised.

    Keys may change with time. They are computed when a content becomes a leaf, and afresh by `rank`.
    """

    __slots__ = ("_heap", "_key", "_leaves", "_members")

    def __init__(self, key: Callable[[LastUse], float]) -> None:
        self._key = key
        self._members: dict[bytes, _Member] = {}
        self._leaves: list[bytes] = []  # since the heap was made; some may be none by now
        self._heap: list[tuple[float, int, bytes]] = []  # key, time of the last use; also of what is no leaf any more

    def __len__(self) -> int:
        return len(self._members)

    def use(self, chain: Sequence[tuple[bytes, LastUse]]) -> int:
        """A request used these contents, the head of their chain first, and left.

        Returns:
            How many of them were here.
        """
        members = self._members
        before = len(members)
        parent: bytes | None = None
        for content, use in chain:
            member = members.get(content)
            if member is None:
                members[content] = _Member(use, parent)
                if parent is not None:
                    members[parent].num_children += 1
            else:
                member.use = use
            parent = content
        if parent is not None:
            self._leaves.append(parent)  # what is before it is followed
        return len(chain) - (len(members) - before)

    def shrink(self, size: int) -> None:
        """Evict down to so many contents."""
        members, heap = self._members, self._heap
        if len(heap) > 2 * len(members) + 64:
            self.rank()
        self._push_leaves()
        while len(members) > size and heap:
            _, since, content = heapq.heappop(heap)
            member = members.get(content)
            if member is None or member.num_children or member.use.since != since:
                continue
            del members[content]
            if member.parent is not None:
                above = members[member.parent]
                above.num_children -= 1
                if not above.num_children:
                    heapq.heappush(heap, (self._key(above.use), above.use.since, member.parent))

    def rank(self) -> None:
        """Compute all keys afresh."""
        self._heap.clear()
        self._leaves = [content for content, member in self._members.items() if not member.num_children]
        self._push_leaves()

    def _push_leaves(self) -> None:
        for content in self._leaves:
            member = self._members.get(content)
            if member is not None and not member.num_children:
                heapq.heappush(self._heap, (self._key(member.use), member.use.since, content))
        self._leaves.clear()
