"""`SimulatedScheduler`: the real scheduler, told of requests without tokens, that can make uneventful steps together.

A step is uneventful if all who run get one token, nobody is admitted, and blocks suffice. Then a plan, its launch and
its collection change nothing but counts, and blocks where one is full; and in the last of several such steps requests
may end. `advance` does just that, for many steps at once, in the order in which single steps would: what each policy
hears and decides is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from vcore.engine.request import EngineRequest, FinishReason, RequestStatus
from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.interfaces.scheduling import RequestView, SchedulingPolicy
from vcore.interfaces.step import SampledTokens, SchedulerOutput
from vcore.kv_cache.manager import RequestBlocks
from vcore.scheduler import Scheduler, SchedulerSettings
from vcore.scheduler.row_table import Batch
from vcore.simulate.virtual_prompt import VirtualChain, VirtualPrompt

__all__ = ["END", "SimulatedScheduler"]

END = 1
"""The token that ends a simulated request."""

_GROW, _PUBLISH = 0, 1
"""What happens to a row in a step, in this order."""


class SimulatedScheduler(Scheduler):
    """Takes requests whose prompt is a `VirtualPrompt`. One step is in flight at most."""

    def __init__(
        self,
        settings: SchedulerSettings,
        policy: SchedulingPolicy,
        make_eviction: Callable[[EvictionContext], EvictionPolicy],
        *,
        policy_name: str,
        eviction_name: str,
        clock: Callable[[], float],
        new_hash: Callable[[], bytes],
    ) -> None:
        """As a `Scheduler`, and:

        Args:
            new_hash: makes a content hash that was never given out, for blocks with generated tokens.
        """
        super().__init__(
            settings, policy, make_eviction, policy_name=policy_name, eviction_name=eviction_name, clock=clock
        )
        self._new_hash = new_hash
        self._ends = np.zeros(settings.max_num_seqs, dtype=np.int64)
        """By row, the tokens at which the request ends. Its limit may be higher: nobody knows beforehand."""
        # Which rows begin with the same blocks matters to kernels alone.
        self._launcher.without_shared_prefix()

    @property
    def has_untold(self) -> bool:
        """Whether requests ended that `take_finished` has not told of."""
        return self._lifecycle.has_untold

    @property
    def batch(self) -> Batch:
        """The running requests."""
        return self._table.batch()

    def take_rows(self, output: SchedulerOutput) -> None:
        """Note where the requests end that take a row in a step."""
        for new in output.new_rows:
            self._ends[new.row] = _virtual(new.token_ids).end

    def answer(self, output: SchedulerOutput) -> SampledTokens:
        """What the step that `schedule` returned last samples: anything, but `END` where a request ends."""
        rows = output.rows[output.samples]
        # While a token is being sampled it counts already.
        token_ids = np.where(self._table.num_tokens[rows] == self._ends[rows], END, 0)
        return SampledTokens(step_id=output.step_id, rows=rows, token_ids=token_ids)

    def last_starts(self) -> NDArray[np.int64]:
        """int64 [num_scheduled]: computed tokens of each row before the step that `schedule` returned last."""
        return self._lifecycle.in_flight[-1].starts

    def kv_tokens(self) -> int:
        """Tokens that the running requests attend to in the next step, if all decode."""
        return int(self._table.num_computed[self.batch.rows].sum()) + self.num_running

    @property
    def num_free_blocks(self) -> int:
        """Blocks that no request uses, whether they hold cached content or nothing."""
        return self._kv.pool.num_available

    def num_cached_tokens(self, num_prompt_tokens: int, prefix_hashes: Sequence[bytes]) -> int:
        """Tokens of the beginning of a prompt that are cached now.

        Args:
            num_prompt_tokens: how long it is.
            prefix_hashes: of its full blocks.
        """
        blocks = self._kv.open((), 0)
        blocks.chain = VirtualChain(self._kv.block_size, prefix_hashes, self._new_hash)
        return self._kv.find_prefix(blocks, VirtualPrompt(num_prompt_tokens)).num_columns * self._kv.block_size

    # Uneventful steps.

    def num_uneventful(self) -> int:
        """The most steps from now on that are uneventful, if nothing arrives: up to the one in which a request ends."""
        table, batch = self._table, self.batch
        rows = batch.rows
        if not rows.size or self._lifecycle.in_flight or rows.size > self._settings.max_num_batched_tokens:
            return 0
        known = table.num_tokens[rows]
        if np.count_nonzero(known - table.num_computed[rows] != 1) or not self._admits_none():
            return 0
        count = int((self._ends[rows] - known).min())
        if self._kv.windows:
            count = min(count, int((table.pass_at[rows] - table.num_computed[rows]).min()))
        return count

    def advance(self, num_steps: int, set_time: Callable[[int], None]) -> int:
        """Make uneventful steps; `take_finished` tells who ended in the last of them.

        Args:
            num_steps: up to `num_uneventful`.
            set_time: sets the clock to when so many of them are made, before what policies may hear then.

        Returns:
            How many were made: fewer if blocks run out.
        """
        batch = self.batch
        rows, table = batch.rows, self._table
        computed = table.num_computed[rows]
        make = self._advance_aloud if self._policy.hears_tokens else self._make_blocks
        made = make(batch, computed, num_steps, set_time)
        if made:
            set_time(made)
            self._set_counts(batch, computed + made)
            self._launcher.skip(made)
            self._lifecycle.fruitless_preemptions = 0
            for index in np.flatnonzero(computed + made + 1 == self._ends[rows]).tolist():
                self._lifecycle.end(batch.requests[index], FinishReason.STOP)
        return made

    def _admits_none(self) -> bool:
        """Whether no waiting request can start while those who run decode.

        They allocate and evict blocks, which leaves less room; and what they make findable ends in generated tokens,
        which nobody who waits has.
        """
        waiting, policy = self._lifecycle.waiting, self._policy
        if not len(waiting):
            return True
        if policy.displaces:
            return False
        if not (self._table.has_free_row and self._table.num_running < self._settings.max_num_batched_tokens):
            return True
        if policy.reorders or policy.caps_prefill:
            return False
        waiting.open(self._clock())
        try:
            head = waiting.peek()
            return head is not None and self._has_no_room(head.request_id)
        finally:
            waiting.close()

    def _has_no_room(self, request_id: str) -> bool:
        """Whether blocks are short for admitting a waiting request; they only get fewer while others decode."""
        request = self._lifecycle.requests[request_id]
        kv = self._kv
        match = kv.no_match() if request.bypasses_hits else kv.find_prefix(request.blocks, request.token_ids)
        count = kv.needs.to_admit(len(request.token_ids), match.num_columns, match.num_unused)
        if request.status is RequestStatus.PREEMPTED:
            count += self._table.num_running * kv.num_groups
        return count > kv.pool.num_available

    def _make_blocks(
        self, batch: Batch, computed: NDArray[np.int64], num_steps: int, set_time: Callable[[int], None]
    ) -> int:
        """Allocate and publish what these steps need and fill; returns how many steps there are blocks for."""
        for step, events in groupby(self._block_events(batch.rows, computed, num_steps), key=_step_of):
            set_time(step - 1)
            if not self._make_blocks_of(step, list(events), batch, computed):
                return step - 1
        return num_steps

    def _make_blocks_of(
        self, step: int, events: list[tuple[int, int, int]], batch: Batch, computed: NDArray[np.int64]
    ) -> bool:
        """What one step does to blocks. False, and nothing has changed, if they do not suffice."""
        kv, table, requests = self._kv, self._table, batch.requests
        growing = [index for _, kind, index in events if kind == _GROW]
        if growing:
            size = kv.num_groups
            fresh = kv.pool.allocate(len(growing) * size)
            if fresh is None:
                return False
            for number, index in enumerate(growing):
                kv.grow(requests[index].blocks, fresh[number * size : (number + 1) * size])
            table.capacity[batch.rows[growing]] += kv.block_size
        full = [index for _, kind, index in events if kind == _PUBLISH]
        for index in full:
            request, target = requests[index], int(computed[index]) + step
            _virtual(request.token_ids).num_tokens = target
            self._lifecycle.publish(request, target)
        if full:
            kv.end_step()
        return True

    def _block_events(
        self, rows: NDArray[np.int64], computed: NDArray[np.int64], num_steps: int
    ) -> Iterator[tuple[int, int, int]]:
        """Step (from 1), kind and index into the batch of each block that is needed or full, in order."""
        table, size = self._table, self._kv.block_size
        firsts = {_GROW: table.capacity[rows] - computed + 1, _PUBLISH: table.publish_at[rows] - computed}
        steps, kinds, indices = [], [], []
        for kind, first in firsts.items():
            due = np.flatnonzero(first <= num_steps)
            first = first[due]
            while due.size:
                steps.append(first)
                kinds.append(np.full(due.size, kind))
                indices.append(due)
                first = first + size
                due, first = due[first <= num_steps], first[first <= num_steps]
        if not steps:
            return iter(())
        step, kind_of, index = np.concatenate(steps), np.concatenate(kinds), np.concatenate(indices)
        order = np.lexsort((index, kind_of, step))
        return zip(step[order].tolist(), kind_of[order].tolist(), index[order].tolist(), strict=True)

    def _advance_aloud(
        self, batch: Batch, computed: NDArray[np.int64], num_steps: int, set_time: Callable[[int], None]
    ) -> int:
        """Step by step for a policy that hears of tokens: between two steps it may look at any request."""
        views: list[RequestView] = list(batch.views)
        ones = [1] * len(batch.requests)
        table, rows = self._table, batch.rows
        for made in range(num_steps):
            before = computed + made
            events = list(self._block_events(rows, before, 1))
            set_time(made)
            if events and not self._make_blocks_of(1, events, batch, before):
                return made
            # As they are when a step is collected: computed, and its token not yet known.
            table.num_computed[rows] = before + 1
            table.num_tokens[rows] = before + 2
            set_time(made + 1)
            self._policy.on_tokens(views.copy(), ones.copy())  # a policy may do with its lists what it likes
            self._set_counts(batch, before + 1)
        return num_steps

    def _set_counts(self, batch: Batch, computed: NDArray[np.int64]) -> None:
        """So many tokens of each are computed, and one more is known."""
        table, rows = self._table, batch.rows
        table.num_computed[rows] = computed
        table.num_known[rows] = table.num_tokens[rows] = computed + 1
        for request, count in zip(batch.requests, (computed + 1).tolist(), strict=True):
            _virtual(request.token_ids).num_tokens = count

    def _open(self, request: EngineRequest) -> RequestBlocks:
        blocks = super()._open(request)
        prompt = _virtual(request.prompt_token_ids)
        blocks.chain = VirtualChain(self._kv.block_size, prompt.hashes, self._new_hash)
        return blocks


def _step_of(event: tuple[int, int, int]) -> int:
    return event[0]


def _virtual(token_ids: list[int]) -> VirtualPrompt:
    assert isinstance(token_ids, VirtualPrompt), "a simulated request has a virtual prompt"
    return token_ids
