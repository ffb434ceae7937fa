"""`S3FIFOEviction`: three queues, so that most of what is used once leaves soon."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore_policies.eviction.memory import ContentMemory
from vcore_policies.eviction.options import S3FIFOOptions

__all__ = ["S3FIFOEviction"]

_MOST_USES = 3


@dataclass(slots=True)
class _Plan:
    """What evicting so many blocks does to the queues."""

    victims: list[int] = field(default_factory=list)
    promoted: list[int] = field(default_factory=list)
    """Newcomers that move to the main queue."""
    passed: list[int] = field(default_factory=list)
    """Blocks of the main queue that are in use, and so join its end only when they are not."""
    requeued: OrderedDict[int, int] = field(default_factory=OrderedDict)
    """Blocks of the main queue that go to its end, in their order there, and the uses that they have left."""


class S3FIFOEviction(EvictionPolicy):
    """S3-FIFO (Yang, Zhang, Qiu, Yue and Vinayak, "FIFO queues are all you need for cache eviction", SOSP 2023,
    algorithm 1); O(1) an event, amortised.

    Newcomers enter a small queue; at its end those that were used again move to the main queue, and the others leave
    and are remembered in a ghost queue. What comes back from there enters the main queue at once. At the end of that,
    what was used since goes round again. A block enters its queue when its first user leaves, the tail of a chain
    before its head; one that is in use when it reaches the end of its queue counts as used again, and goes round once
    its user leaves. One hit is enough to move on, where the paper asks for two: blocks of a prompt are many, and hit
    together.
    """

    def __init__(self, *, options: S3FIFOOptions | None, context: EvictionContext) -> None:
        """Without options, the defaults of `S3FIFOOptions`."""
        self._view = context.view
        self._share = (options or S3FIFOOptions()).small
        self._ghosts: ContentMemory[bool] = ContentMemory(context.num_blocks)
        self._small: OrderedDict[int, None] = OrderedDict()
        self._main: OrderedDict[int, None] = OrderedDict()
        self._passed: set[int] = set()  # blocks of the main queue that reached its end in use, and still are
        self._uses: dict[int, int] = {}  # since it entered its queue, of every cached block
        self._unused: set[int] = set()
        self._unused_in_main = 0
        self._plan: _Plan | None = None  # what was picked last, if nothing happened since

    def on_insert(self, block_ids: Sequence[int]) -> None:
        """Their uses count from now."""
        for block_id in block_ids:
            self._uses[block_id] = 0

    def on_hit(self, block_ids: Sequence[int]) -> None:
        """One use more each; they are no candidates, but keep their places."""
        self._plan = None
        self._unused_in_main -= self._count_unused_in_main(block_ids)
        self._unused.difference_update(block_ids)
        for block_id in block_ids:
            self._uses[block_id] = min(_MOST_USES, self._uses[block_id] + 1)

    def on_free(self, block_ids: Sequence[int]) -> None:
        """They are candidates; those that are in no queue yet enter one."""
        self._plan = None
        self._unused.update(block_ids)
        for block_id in block_ids:
            if block_id in self._passed:
                self._passed.remove(block_id)
                self._main[block_id] = None
            elif block_id not in self._small and block_id not in self._main:
                known = self._ghosts.get(self._view.content(block_id), False)
                (self._main if known else self._small)[block_id] = None
        self._unused_in_main += self._count_unused_in_main(block_ids)

    def on_evict(self, block_ids: Sequence[int]) -> None:
        """Forget them, but for the contents that were newcomers."""
        plan, self._plan = self._plan, None
        if plan is not None and plan.victims == list(block_ids):
            self._carry_out(plan)
        self._unused_in_main -= self._count_unused_in_main(block_ids)
        self._unused.difference_update(block_ids)
        for block_id in block_ids:
            if block_id in self._small:
                del self._small[block_id]
                self._ghosts.put(self._view.content(block_id), True)
            self._main.pop(block_id, None)
            self._passed.discard(block_id)
            self._uses.pop(block_id, None)

    def pick_victims(self, count: int) -> list[int]:
        """The `count` that reach the end of their queues first."""
        self._plan = self._make_plan(count)
        return list(self._plan.victims)

    def _make_plan(self, count: int) -> _Plan:
        plan = _Plan()
        small, main = iter(self._small), iter(self._main)
        in_small, in_main = len(self._small), len(self._main) + len(self._passed)
        unused_in_main = self._unused_in_main
        main_done = not self._main
        while len(plan.victims) < count:
            # Where all of the main queue is in use, only a newcomer can go, however few there are.
            if in_small and (in_small > self._share * (in_small + in_main) or not unused_in_main):
                block_id = next(small)
                in_small -= 1
                if block_id in self._unused and not self._uses[block_id]:
                    plan.victims.append(block_id)
                    continue
                # Used again after its first use, which is not counted.
                plan.promoted.append(block_id)
                in_main += 1
                if block_id in self._unused:
                    plan.requeued[block_id] = 0
                    unused_in_main += 1
                else:
                    plan.passed.append(block_id)
                continue
            found = None if main_done else next(main, None)
            if found is None:  # the queue has been gone through: on with what went to its end
                main_done = True
                found, uses = plan.requeued.popitem(last=False)
            else:
                uses = self._uses[found]
            if found not in self._unused:
                plan.passed.append(found)
            elif uses:
                plan.requeued[found] = uses - 1
            else:
                plan.victims.append(found)
                in_main -= 1
                unused_in_main -= 1
        return plan

    def _carry_out(self, plan: _Plan) -> None:
        for block_id in plan.promoted:
            del self._small[block_id]
            self._uses[block_id] = 0
            self._unused_in_main += block_id in self._unused
        for block_id in plan.passed:
            self._main.pop(block_id, None)
            self._passed.add(block_id)
        for block_id, uses in plan.requeued.items():
            self._main.pop(block_id, None)
            self._main[block_id] = None
            self._uses[block_id] = uses
        for block_id in plan.promoted:  # promoted, and then a victim of the main queue
            if block_id not in self._passed:
                self._main.setdefault(block_id, None)

    def _count_unused_in_main(self, block_ids: Sequence[int]) -> int:
        return sum(block_id in self._unused and block_id in self._main for block_id in block_ids)
