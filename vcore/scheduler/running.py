"""`RunningPlanner`: the first half of a plan, for the requests that run already: tokens, blocks, preemption."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from vcore.engine.request import RequestStatus
from vcore.scheduler.lifecycle import Lifecycle
from vcore.scheduler.plan import StepPlan
from vcore.scheduler.request import Request
from vcore.scheduler.settings import SchedulerSettings

__all__ = ["RunningPlanner", "chunk_size"]

_NO_CAP = 2**62


def chunk_size(settings: SchedulerSettings, need: int, budget: int, prefill_left: int) -> int:
    """How many of the `need` tokens that a request has to catch up with it may compute now.

    Args:
        settings: the limits.
        need: known tokens that are not computed, at least 1.
        budget: tokens left in the step.
        prefill_left: prefill tokens left in the step; one token alone is no prefill.

    Returns:
        From 0 to `need`. Without chunked prefill all or nothing, except where `need` is more than a whole
        step (a preempted request that has grown since it came), which could otherwise never resume.
    """
    if need == 1:
        return min(1, budget)
    most = min(budget, prefill_left)
    if settings.chunked_prefill:
        return min(need, most, settings.long_prefill_threshold or need)
    if need <= most:
        return need
    return most if need > settings.max_num_batched_tokens else 0


class RunningPlanner:
    """Hands out tokens and blocks to running requests, and preempts where blocks are short."""

    def __init__(self, settings: SchedulerSettings, lifecycle: Lifecycle) -> None:
        """A planner for the requests of `lifecycle`."""
        self._settings = settings
        self._lifecycle = lifecycle
        self._table = lifecycle.table
        self._ones = np.ones(settings.max_num_seqs, dtype=np.int64)

    def plan(self, now: float, prefill_cap: int | None) -> StepPlan:
        """Plan one step for all that run now.

        Args:
            now: seconds.
            prefill_cap: most prefill tokens in the step; None for no cap.
        """
        table = self._table
        batch = table.batch()
        budget = self._settings.max_num_batched_tokens
        count = len(batch.requests)
        left = _NO_CAP if prefill_cap is None else prefill_cap
        plan = StepPlan(now, budget, left, batch, self._ones[:count])
        if not count:
            return plan
        rows = batch.rows
        computed = table.num_computed[rows]
        need = table.num_tokens[rows] - computed
        if self._lifecycle.in_flight:
            # What is in flight already brings it to its end.
            need[table.num_tokens[rows] >= table.limits[rows]] = 0
        order: list[int] | None = None
        if count <= budget and not np.count_nonzero(need != 1):
            plan.uniform = True
            plan.budget -= count
        else:
            order = self._grant(plan, need)
        if self._lifecycle.kv.windows:
            self._leave_behind(plan, computed)
        target = computed + plan.granted
        short = target > table.capacity[rows]
        if np.count_nonzero(short):
            self._grow(plan, target, np.flatnonzero(short), order)
        full = target >= table.publish_at[rows]
        if np.count_nonzero(full):
            self._publish(plan, target, np.flatnonzero(full))
        return plan

    def _grant(self, plan: StepPlan, need: NDArray[np.int64]) -> list[int] | None:
        """Divide the budget; returns the policy's order if the budget did not suffice."""
        settings = self._settings
        want = need
        if settings.chunked_prefill and settings.long_prefill_threshold is not None:
            want = np.minimum(need, settings.long_prefill_threshold)
        total = int(want.sum())
        prefill = int(want[need > 1].sum())
        if total <= plan.budget and prefill <= plan.prefill_left:
            plan.granted = want
            plan.budget -= total
            plan.prefill_left -= prefill
            return None
        order = None
        if total > plan.budget and self._lifecycle.policy.orders_running:
            order = self._lifecycle.policy.order_running(plan.batch.views, plan.now)
        granted = np.zeros(len(need), dtype=np.int64)
        needs = need.tolist()
        for index in range(len(needs)) if order is None else order:
            if needs[index] and plan.budget:
                size = chunk_size(settings, needs[index], plan.budget, plan.prefill_left)
                granted[index] = size
                plan.budget -= size
                if needs[index] > 1:
                    plan.prefill_left -= size
        plan.granted = granted
        return order

    def _leave_behind(self, plan: StepPlan, computed: NDArray[np.int64]) -> None:
        """Release what windows have passed, before anybody asks for blocks.

        Only of requests that compute in this step: if it fails they end, so no rank can have missed it.
        """
        due = np.flatnonzero((computed >= self._table.pass_at[plan.batch.rows]) & (plan.granted > 0))
        if not due.size:
            return
        released: list[int] = []
        for index in due.tolist():
            request = plan.batch.requests[index]
            for group, column, block_id in self._lifecycle.leave_behind(request):
                plan.passed.append((group, request.row, column))
                released.append(block_id)
        self._lifecycle.kv.pool.release(released[::-1])

    def _grow(
        self, plan: StepPlan, target: NDArray[np.int64], short: NDArray[np.int64], order: list[int] | None
    ) -> None:
        """Give blocks to the requests `short` of them; all at once if there are enough, else one by one."""
        kv, table, rows = self._lifecycle.kv, self._table, plan.batch.rows[short]
        columns = -((table.capacity[rows] - target[short]) // kv.block_size)
        counts = (columns * kv.num_groups).tolist()
        indices = short.tolist()
        fresh = kv.pool.allocate(sum(counts))
        if fresh is not None:
            table.capacity[rows] += columns * kv.block_size
            start = 0
            for index, count in zip(indices, counts, strict=True):
                block_ids = fresh[start : start + count]
                kv.grow(plan.batch.requests[index].blocks, block_ids)
                plan.grown.append((index, block_ids))
                start += count
            return
        by_index = dict(zip(indices, counts, strict=True))
        turn: Iterable[int] = indices if order is None else (index for index in order if index in by_index)
        for index in turn:
            if plan.granted[index]:
                self._give_or_preempt(plan, index, by_index[index])

    def _give_or_preempt(self, plan: StepPlan, index: int, count: int) -> None:
        """Preempt until `count` blocks are there for request `index`, or it is preempted itself."""
        pool = self._lifecycle.kv.pool
        requests = plan.batch.requests
        while (fresh := pool.allocate(count)) is None:
            victim = self._pick_victim(plan)
            plan.take_out(victim)
            self._lifecycle.preempt(requests[victim])
            if victim == index:
                return
        kv, request = self._lifecycle.kv, requests[index]
        kv.grow(request.blocks, fresh)
        self._table.capacity[request.row] += count // kv.num_groups * kv.block_size
        plan.grown.append((index, fresh))

    def _pick_victim(self, plan: StepPlan) -> int:
        """The index in the batch of a request that still runs."""
        policy = self._lifecycle.policy
        candidates = [index for index, request in enumerate(plan.batch.requests) if self._runs(request)]
        # The batch can not be empty: a request alone always fits (`BlockNeeds.most_blocks`), `Scheduler.add` saw to
        # that.
        requests = plan.batch.requests
        if policy.picks_victim and not self.is_stuck:
            return candidates[policy.pick_victim([requests[index].view for index in candidates])]
        return max(candidates, key=lambda index: requests[index].arrival_index)

    @property
    def is_stuck(self) -> bool:
        """Whether so much was preempted without any token coming out that the core must decide alone.

        An order of requests never comes here, since its most urgent one is never a victim. A policy without
        any order could preempt in circles for ever; the latest to arrive as victim ends that.
        """
        return self._lifecycle.fruitless_preemptions > 2 * self._settings.max_num_seqs + 8

    @staticmethod
    def _runs(request: Request) -> bool:
        return request.status is RequestStatus.RUNNING

    def _publish(self, plan: StepPlan, target: NDArray[np.int64], full: NDArray[np.int64]) -> None:
        requests = plan.batch.requests
        for index, num_computed in zip(full.tolist(), target[full].tolist(), strict=True):
            request = requests[index]
            if self._runs(request):
                self._lifecycle.publish(request, num_computed)
