"""`PrefixAwareEviction`: what gives the fewest hits for the room that it takes goes first, from the ends of chains."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore_policies.eviction.cohorts import NO_COHORT, Cohorts
from vcore_policies.eviction.options import PrefixAwareOptions
from vcore_policies.eviction.order_choice import OrderChoice
from vcore_policies.eviction.reuse_hazard import ReuseHazard, gap_class, reuse_class
from vcore_policies.eviction.shadow_cache import LastUse
from vcore_policies.eviction.worth_order import WorthOrder

__all__ = ["PrefixAwareEviction"]

_LEAST_EVICTED = 128


class PrefixAwareEviction(EvictionPolicy):
    """Learns online how soon blocks of each kind are used again, and gives up what is worth least (`ReuseHazard`).

    The kind of a block is how often its content was used, how long it rested before it was used last, whether it ends a
    sequence, whether the request behind it continued what was known, and how long that was. Contents that were evicted
    are remembered, so that what came back too late is learned from, too; their number has a bound. A block goes only
    after all blocks that follow it: a chain shrinks from its end (`WorthOrder`). As long as plain counts of uses would
    hit more than what was learned, blocks go by these (`OrderChoice`).

    Blocks of a request with the same past form a cohort, of one kind and age. The worths of cohorts are computed afresh
    each time a sixteenth of the cache was evicted; in between they are in a heap. So an event costs O(1) and a victim
    O(log n), amortised. Time is counted in requests.
    """

    def __init__(self, *, options: PrefixAwareOptions | None, context: EvictionContext) -> None:
        """Without options, the defaults of `PrefixAwareOptions`."""
        options = options or PrefixAwareOptions()
        self._view = context.view
        self._ghosts_per_block = options.ghosts
        self._least_ghosts = options.least_ghosts
        self._half_life = options.half_life
        self._now = 0  # requests that left
        self._num_cached = 0
        self._num_unused = 0
        self._num_evicted = 0  # since worths were computed
        self._uses = [0] * context.num_blocks
        self._gaps = [0] * context.num_blocks  # between the last two uses, as `gap_class` has it
        self._sampled = [False] * context.num_blocks  # whether `OrderChoice` hears of their contents
        # Contents that were evicted, by when, and their cohorts.
        self._ghosts: OrderedDict[bytes, int] = OrderedDict()
        self._cohorts = Cohorts(context.num_blocks)
        self._hazard = ReuseHazard()
        self._order = WorthOrder(context.view, self._cohorts, self._hazard)
        self._choice = OrderChoice(context.num_blocks, self._worth)

    def on_insert(self, block_ids: Sequence[int]) -> None:
        """Contents that are remembered are used again, the others for the first time."""
        content, ghosts = self._view.content, self._ghosts
        uses, gaps, cohort_uses = self._uses, self._gaps, self._cohorts.uses
        self._num_cached += len(block_ids)
        back: dict[int, int] = {}
        samples, sampled = self._choice.samples, self._sampled
        before, gap = NO_COHORT, 0
        for block_id in block_ids:
            name = content(block_id)
            sampled[block_id] = samples(name)
            cohort = ghosts.pop(name, NO_COHORT)
            if cohort != before:
                before, gap = cohort, 0 if cohort == NO_COHORT else self._gap_since(cohort)
            gaps[block_id] = gap
            if cohort == NO_COHORT:
                uses[block_id] = 1
            else:
                uses[block_id] = cohort_uses[cohort] + 1
                back[cohort] = back.get(cohort, 0) + 1
        self._end_spells(back, reused=True)

    def on_hit(self, block_ids: Sequence[int]) -> None:
        """They are used once more, and are no candidates."""
        uses, gaps, cohort_of = self._uses, self._gaps, self._cohorts.of_block
        left: dict[int, int] = {}
        at_once = gap_class(1)  # what is in use and is used by another
        before, gap = NO_COHORT, at_once
        for block_id in block_ids:
            uses[block_id] += 1
            cohort = cohort_of[block_id]
            if cohort != before:
                before, gap = cohort, at_once if cohort == NO_COHORT else self._gap_since(cohort)
            gaps[block_id] = gap
            if cohort != NO_COHORT:
                cohort_of[block_id] = NO_COHORT
                left[cohort] = left.get(cohort, 0) + 1
        self._num_unused -= sum(left.values())
        self._end_spells(left, reused=True)

    def on_free(self, block_ids: Sequence[int]) -> None:
        """A request left. Its blocks are candidates, in a cohort for each past that they have."""
        self._now += 1
        self._num_unused += len(block_ids)
        view, uses, gaps = self._view, self._uses, self._gaps
        tail, head = block_ids[0], block_ids[-1]
        length = view.depth(tail) + 1
        continues = uses[head] > 1 or view.depth(head) > 0
        ends = view.ends_sequence(tail)
        by_past: dict[tuple[int, int], list[int]] = {}
        for block_id in reversed(block_ids[1:] if ends else block_ids):
            past = uses[block_id], gaps[block_id]
            if past in by_past:
                by_past[past].append(block_id)
            else:
                by_past[past] = [block_id]
        left = {
            (count, gap): LastUse(self._now, count, reuse_class(count, gap, False, continues, length))
            for count, gap in by_past
        }
        for past, blocks in by_past.items():
            self._leave_behind(blocks, left[past])
        last = LastUse(self._now, uses[tail], reuse_class(uses[tail], gaps[tail], ends, continues, length))
        if ends:
            self._leave_behind([tail], last)
        content, sampled = view.content, self._sampled
        chain = [
            (content(block_id), left[uses[block_id], gaps[block_id]])
            for block_id in block_ids[:0:-1]
            if sampled[block_id]
        ]
        if sampled[tail]:
            chain.append((content(tail), last))
        self._choice.use(chain)

    def on_evict(self, block_ids: Sequence[int]) -> None:
        """Their contents are remembered, unless they were withdrawn while in use."""
        content, ghosts, cohort_of = self._view.content, self._ghosts, self._cohorts.of_block
        self._num_cached -= len(block_ids)
        self._num_evicted += len(block_ids)
        num_unused = self._num_unused
        for block_id in block_ids:
            if cohort_of[block_id] != NO_COHORT:
                ghosts[content(block_id)] = cohort_of[block_id]
                num_unused -= 1
        self._num_unused = num_unused
        self._order.evict(block_ids)
        self._choice.shrink(num_unused, len(block_ids))
        forgotten: dict[int, int] = {}
        most = max(self._ghosts_per_block * self._num_cached, self._least_ghosts)
        for _ in range(len(ghosts) - most):
            cohort = ghosts.popitem(last=False)[1]
            forgotten[cohort] = forgotten.get(cohort, 0) + 1
        self._end_spells(forgotten, reused=False)

    def pick_victims(self, count: int) -> list[int]:
        """The leaves that are worth least, one after another."""
        if not count:
            return []
        order, choice = self._order, self._choice
        is_time = self._num_evicted >= max(_LEAST_EVICTED, self._num_cached // 16)
        if is_time or order.has_new_kinds or order.by_uses != choice.goes_by_uses:
            turnover = self._num_evicted / self._num_cached
            self._hazard.fade(0.5 ** (turnover / self._half_life))
            order.by_uses = choice.goes_by_uses
            order.compute_worths(self._now + 1)
            choice.rank()
            self._num_evicted = 0
        return order.pick(count, self._now + 1)

    def _gap_since(self, cohort: int) -> int:
        return gap_class(self._now + 1 - int(self._cohorts.since[cohort]))

    def _leave_behind(self, blocks: list[int], use: LastUse) -> None:
        self._order.add(self._cohorts.add(use.kind, use.since, use.uses, blocks))

    def _worth(self, use: LastUse) -> float:
        return self._order.worth(use.kind, use.since, self._now + 1)

    def _end_spells(self, counts: Mapping[int, int], *, reused: bool) -> None:
        """So many contents of each cohort are used again, or forgotten."""
        cohorts = self._cohorts
        for cohort, count in counts.items():
            kind, since = int(cohorts.kinds[cohort]), int(cohorts.since[cohort])
            weight = float(cohorts.weights[cohort]) * count
            self._hazard.end(kind, self._now + 1 - since, weight, reused=reused)
            if cohorts.shrink(cohort, count):
                self._order.discard(cohort)
