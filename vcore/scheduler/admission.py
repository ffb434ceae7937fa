"""`AdmissionPlanner`: the second half of a plan, for the requests that wait: cache hits, room, displacement."""

from __future__ import annotations

from enum import Enum

from vcore.engine.request import RequestStatus
from vcore.engine.step_output import Started
from vcore.interfaces.step import NewRow
from vcore.kv_cache.prefix import PrefixMatch
from vcore.scheduler.lifecycle import Lifecycle
from vcore.scheduler.plan import StepPlan
from vcore.scheduler.request import Request
from vcore.scheduler.running import RunningPlanner, chunk_size
from vcore.scheduler.settings import SchedulerSettings
from vcore.scheduler.waiting_queue import WaitingQueue

__all__ = ["AdmissionPlanner"]


class _Outcome(Enum):
    """What became of the request at the head of the queue."""

    ADMITTED = 0
    SHARES = 1
    """It waits for a block that is being filled in this step; others may pass."""
    NO_ROOM = 2
    """Rows or blocks are short."""
    NO_TOKENS = 3
    """The rest of the budget does not suffice."""


class AdmissionPlanner:
    """Admits waiting requests in the policy's order, until the first that finds no room."""

    def __init__(self, settings: SchedulerSettings, lifecycle: Lifecycle, running: RunningPlanner) -> None:
        """A planner for the requests that wait in `lifecycle`."""
        self._settings = settings
        self._lifecycle = lifecycle
        self._running = running
        self._table = lifecycle.table
        self.num_query_tokens = 0
        """Prompt tokens of admitted requests that were looked up in the cache."""
        self.num_hit_tokens = 0
        """Those of them that were there."""
        self._refused: tuple[int, int, int, int] | None = None

    def plan(self, plan: StepPlan) -> None:
        """Add to `plan` what fits into the tokens that running requests leave."""
        waiting = self._lifecycle.waiting
        # Requests that were just preempted must not take the blocks that were just freed for others.
        if not len(waiting) or plan.budget <= 0 or plan.preempted:
            return
        if not self._table.has_free_row and not self._lifecycle.policy.displaces:
            return
        plan.reserved = self._reserved_blocks(plan)
        waiting.open(plan.now)
        try:
            self._walk(plan, waiting)
        finally:
            waiting.close()

    def _walk(self, plan: StepPlan, waiting: WaitingQueue) -> None:
        num_passed = 0
        while plan.budget > 0 and num_passed < self._settings.max_num_seqs:
            request = waiting.peek()
            if request is None:
                return
            outcome = self._try(plan, request)
            if outcome is _Outcome.SHARES:
                waiting.skip()
                num_passed += 1
            elif outcome is _Outcome.NO_TOKENS or (outcome is _Outcome.NO_ROOM and not self._displace(plan, request)):
                return

    def _try(self, plan: StepPlan, request: Request) -> _Outcome:
        """Admit the request at the head if it can be."""
        # One whose last tokens are still being sampled resumes when they are known.
        if request.num_in_flight or request in plan.preempted:
            return _Outcome.NO_TOKENS
        if not self._table.has_free_row:
            return _Outcome.NO_ROOM
        match = self._match(request)
        if match.next_is_filling:
            return _Outcome.SHARES
        if self._excess_blocks(plan, request, match) > 0:
            return _Outcome.NO_ROOM
        num_hit_tokens = match.num_columns * self._settings.block_size
        need = len(request.token_ids) - num_hit_tokens
        size = chunk_size(self._settings, need, plan.budget, plan.prefill_left)
        if not size:
            return _Outcome.NO_TOKENS
        needs = self._lifecycle.kv.needs
        num_columns = needs.num_columns(num_hit_tokens + size)
        plan.reserved += needs.to_catch_up(len(request.token_ids), num_hit_tokens, num_columns)
        if need > 1:
            plan.prefill_left -= size
        self._admit(plan, request, match, num_columns - match.num_columns, size)
        return _Outcome.ADMITTED

    def _admit(self, plan: StepPlan, request: Request, match: PrefixMatch, num_columns: int, size: int) -> None:
        lifecycle = self._lifecycle
        num_hit_tokens = match.num_columns * self._settings.block_size
        lifecycle.waiting.pop()
        lifecycle.start(request, match, num_columns)
        if self._settings.prefix_caching:
            lifecycle.publish(request, num_hit_tokens + size)
        plan.budget -= size
        plan.new.append((request, size))
        engine = request.engine
        plan.new_rows.append(
            NewRow(
                row=request.row,
                request_id=engine.request_id,
                token_ids=request.token_ids.copy(),
                num_prompt_tokens=request.num_prompt_tokens,
                num_computed_tokens=num_hit_tokens,
                block_ids=[block_ids.copy() for block_ids in request.blocks.block_ids],
                params=engine.params,
                eos_token_ids=engine.eos_token_ids,
                seed=engine.seed,
                sample_index=engine.sample_index,
                bad_words_token_ids=engine.bad_words_token_ids,
                prepared=engine.prepared,
                pooling=engine.pooling,
            )
        )
        if not request.was_started:
            request.was_started = True
            plan.started[engine.request_id] = Started(plan.now, num_hit_tokens)
            if self._settings.prefix_caching and not request.bypasses_hits:
                self.num_query_tokens += request.num_prompt_tokens
                self.num_hit_tokens += num_hit_tokens

    def _match(self, request: Request) -> PrefixMatch:
        if request.bypasses_hits:
            return self._lifecycle.kv.no_match()
        return self._lifecycle.kv.find_prefix(request.blocks, request.token_ids)

    def _excess_blocks(self, plan: StepPlan, request: Request, match: PrefixMatch) -> int:
        """How many blocks are short for admitting a request; 0 or less if there is room.

        It must find room for all of its tokens, not only this step's, or it would be preempted half-way.
        One that was preempted before waits until all that run could also grow, or it would soon be the
        victim again.
        """
        kv = self._lifecycle.kv
        count = kv.needs.to_admit(len(request.token_ids), match.num_columns, match.num_unused)
        if request.status is RequestStatus.PREEMPTED:
            count += self._table.num_running * kv.num_groups
        return count + plan.reserved - kv.pool.num_available

    def _reserved_blocks(self, plan: StepPlan) -> int:
        """Blocks that running requests still need for tokens that they have."""
        rows, table = plan.batch.rows, self._table
        if plan.uniform or not rows.size:
            return 0
        needs = self._lifecycle.kv.needs
        return needs.to_catch_up_all(table.num_tokens[rows], table.num_computed[rows], table.capacity[rows])

    def _displace(self, plan: StepPlan, request: Request) -> bool:
        """Preempt running requests for a waiting one, if the policy says so and that makes room."""
        policy = self._lifecycle.policy
        if not policy.displaces or self._running.is_stuck:
            return False
        table = self._table
        question = (request.arrival_index, request.num_preemptions, table.departures, table.num_running)
        # A policy without a dynamic order is not asked again about the same requests.
        if question == self._refused and not policy.reorders:
            return False
        victims = self._find_victims(plan, request)
        if not victims:
            self._refused = question
            return False
        for index in victims:
            victim = plan.batch.requests[index]
            plan.reserved -= self._reserved_for(victim)
            plan.take_out(index)
            self._lifecycle.kv.retract(victim.blocks)
            self._lifecycle.preempt(victim)
        return True

    def _find_victims(self, plan: StepPlan, request: Request) -> list[int]:
        """Indices in the batch of those to preempt so that `request` has room; none if the policy refuses one.

        Those admitted in this step are not in the batch, so they stay.
        """
        match = self._match(request)
        if match.next_is_filling:
            return []
        policy, pool = self._lifecycle.policy, self._lifecycle.kv.pool
        requests = plan.batch.requests
        left = [index for index, running in enumerate(requests) if running.status is RequestStatus.RUNNING]
        excess = self._excess_blocks(plan, request, match)
        has_row = self._table.has_free_row
        victims: list[int] = []
        while excess > 0 or not has_row:
            if not left:
                return []
            index = left[policy.pick_victim([requests[other].view for other in left])]
            victim = requests[index]
            if not policy.should_displace(request.view, victim.view):
                return []
            left.remove(index)
            victims.append(index)
            has_row = True
            # Blocks that it shares stay in use; those count for nothing.
            excess -= sum(pool.ref_counts[block_id] == 1 for block_id in victim.blocks.held())
            excess -= self._reserved_for(victim)
        return victims

    def _reserved_for(self, request: Request) -> int:
        table, row = self._table, request.row
        return self._lifecycle.kv.needs.to_catch_up(
            int(table.num_tokens[row]), int(table.num_computed[row]), request.blocks.num_columns
        )
