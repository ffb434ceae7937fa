"""`Launcher`: turns a plan into what the executor gets, and into the record of a step in flight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vcore.interfaces.step import SchedulerOutput
from vcore.scheduler.lifecycle import Lifecycle
from vcore.scheduler.plan import StepPlan, StepRecord
from vcore.scheduler.request import Request
from vcore.scheduler.shared_prefix import SharedPrefix

__all__ = ["Launcher"]


class Launcher:
    """Advances the counts of those who are computed, as if that were done: the next plan builds on it."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        """A launcher for the requests of `lifecycle`."""
        self._lifecycle = lifecycle
        self._table = lifecycle.table
        self._num_steps = 0
        self._shared_prefix: SharedPrefix | None = None
        kv = lifecycle.kv
        if kv.prefix_caching:
            windowed = {group for group, _ in kv.windows}
            self._shared_prefix = SharedPrefix(
                self._table.num_tokens.size, [group for group in range(kv.num_groups) if group not in windowed]
            )

    def launch(self, plan: StepPlan) -> SchedulerOutput:
        """Turn a plan into a step in flight."""
        requests, rows, counts = self._select(plan)
        table = self._table
        starts = table.num_computed[rows]
        computed = starts + counts
        table.num_computed[rows] = computed
        total = table.num_tokens[rows]
        samples = computed == total
        pooled = self._take_pooled(samples, requests, rows) if table.num_pooling else []
        total += samples
        table.num_tokens[rows] = total
        self._num_steps += 1
        num_decodes = int(np.count_nonzero(counts == 1))
        output = SchedulerOutput(
            step_id=self._num_steps,
            freed_rows=table.drain_freed(),
            new_rows=plan.new_rows,
            rows=plan.batch.rows32.copy() if plan.uniform and not plan.new else rows.astype(np.int32),
            num_tokens=counts.astype(np.int32),
            samples=samples,
            num_decodes=num_decodes,
            num_shared_blocks=self._count_shared(plan, requests, rows, num_decodes),
        )
        if plan.passed:
            output.passed_entries = np.array(plan.passed, dtype=np.int32)
        if plan.grown:
            self._write_growth(output, plan, self._lifecycle.kv.num_groups)
        self._lifecycle.in_flight.append(self._record(plan, output, requests, rows, starts, pooled))
        if plan.new and self._lifecycle.policy.hears_admitted:
            self._lifecycle.policy.on_admitted([request.view for request, _ in plan.new])
        return output

    def _take_pooled(
        self, samples: NDArray[np.bool_], requests: list[Request], rows: NDArray[np.int64]
    ) -> list[tuple[Request, int]]:
        """Those who pool and have reached their last token, taken out of `samples`, each with its row."""
        pools = self._table.pools[rows] & samples
        samples &= ~pools
        return [(requests[index], int(rows[index])) for index in np.flatnonzero(pools).tolist()]

    def settle(self) -> None:
        """Blocks that were found full while nothing is left to compute were filled by steps in flight."""
        filled = self._lifecycle.kv.end_step()
        if filled:
            self._lifecycle.in_flight[-1].filled.extend(filled)

    def without_shared_prefix(self) -> None:
        """Count no shared blocks from now on: no kernel is there to use them."""
        self._shared_prefix = None

    def skip(self, num_steps: int) -> None:
        """So many steps were made without a plan; their ids are taken."""
        self._num_steps += num_steps

    @staticmethod
    def _select(plan: StepPlan) -> tuple[list[Request], NDArray[np.int64], NDArray[np.int64]]:
        """Who is computed, their rows and their tokens, those with one token first."""
        batch, granted = plan.batch, plan.granted
        if plan.uniform and not plan.new:
            return batch.requests, batch.rows, granted
        running = np.flatnonzero(granted)
        new = np.array([(request.row, size) for request, size in plan.new], dtype=np.int64).reshape(-1, 2)
        counts = np.concatenate((granted[running], new[:, 1]))
        order = np.argsort(counts != 1, kind="stable")
        chosen = [batch.requests[index] for index in running.tolist()] + [request for request, _ in plan.new]
        requests = [chosen[index] for index in order.tolist()]
        rows = np.concatenate((batch.rows[running], new[:, 0]))
        return requests, rows[order], counts[order]

    def _count_shared(self, plan: StepPlan, requests: list[Request], rows: NDArray[np.int64], num_decodes: int) -> int:
        """`SchedulerOutput.num_shared_blocks`."""
        shared = self._shared_prefix
        if shared is None:
            return 0
        for request, _ in plan.new:
            shared.forget(request.row)
        if num_decodes < len(requests):
            requests, rows = requests[:num_decodes], rows[:num_decodes]
        return shared.count(requests, rows)

    @staticmethod
    def _write_growth(output: SchedulerOutput, plan: StepPlan, num_groups: int) -> None:
        rows = plan.batch.rows32[[index for index, _ in plan.grown]]
        block_ids = np.array([b for _, block_ids in plan.grown for b in block_ids], dtype=np.int32)
        block_ids = block_ids.reshape(-1, num_groups)
        if len(block_ids) > rows.size:  # a row that gets several columns
            rows = np.repeat(rows, [len(block_ids) // num_groups for _, block_ids in plan.grown])
        output.grown_rows, output.grown_block_ids = rows, block_ids

    def _record(
        self,
        plan: StepPlan,
        output: SchedulerOutput,
        requests: list[Request],
        rows: NDArray[np.int64],
        starts: NDArray[np.int64],
        pooled: list[tuple[Request, int]],
    ) -> StepRecord:
        if plan.uniform and not plan.new and not self._table.num_pooling:
            sampled, ids, sampled_rows = requests, plan.batch.ids, rows
        else:
            sampled = [request for request, samples in zip(requests, output.samples.tolist(), strict=True) if samples]
            ids = [request.request_id for request in sampled]
            sampled_rows = rows[output.samples]
        return StepRecord(
            output=output,
            requests=requests,
            starts=starts,
            sampled=sampled,
            sampled_ids=ids,
            sampled_rows=sampled_rows,
            departures=self._table.departures,
            pooled=pooled,
            started=plan.started,
            filled=self._lifecycle.kv.end_step(),
        )
