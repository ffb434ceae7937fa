"""`StepPlan`, a step while it is being planned, and `StepRecord`, a step in flight."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vcore.engine.step_output import Started
from vcore.interfaces.step import NewRow, SchedulerOutput
from vcore.kv_cache.manager import FilledBlock
from vcore.scheduler.request import Request
from vcore.scheduler.row_table import Batch

__all__ = ["StepPlan", "StepRecord"]


@dataclass(slots=True)
class StepPlan:
    """Who computes how much in the step that is planned now."""

    now: float
    """Seconds."""
    budget: int
    """Tokens that are left to hand out."""
    prefill_left: int
    """Prefill tokens that are left to hand out."""
    batch: Batch
    """The requests that ran when planning began. One that is preempted meanwhile keeps its place, granted 0."""
    granted: NDArray[np.int64]
    """int64 [batch]: tokens of each. Shared with other steps while `uniform`."""
    uniform: bool = False
    """Whether every request of the batch has one token, its next one to sample from."""
    grown: list[tuple[int, list[int]]] = field(default_factory=list)
    """Index into the batch, and the blocks that it gets: column after column, one a group in each."""
    passed: list[tuple[int, int, int]] = field(default_factory=list)
    """Group, row and column of each block that a window left behind; of requests that are granted tokens, and of
    some that were preempted since."""
    new: list[tuple[Request, int]] = field(default_factory=list)
    """Requests that are admitted, each with its tokens."""
    new_rows: list[NewRow] = field(default_factory=list)
    started: dict[str, Started] = field(default_factory=dict)
    preempted: list[Request] = field(default_factory=list)
    reserved: int = 0
    """Blocks that those who run, or are admitted, still need for tokens that they have."""

    def take_out(self, index: int) -> None:
        """Request `index` of the batch is preempted, so not computed after all; its tokens may go to others."""
        self.budget += int(self.granted[index])
        if self.uniform:
            self.uniform = False
            self.granted = self.granted.copy()
        self.granted[index] = 0
        self.grown = [item for item in self.grown if item[0] != index]
        self.preempted.append(self.batch.requests[index])


@dataclass(slots=True)
class StepRecord:
    """What the scheduler remembers of a step until it is collected."""

    output: SchedulerOutput
    requests: list[Request]
    """All that are computed, in the order of `SchedulerOutput.rows`."""
    starts: NDArray[np.int64]
    """int64 [num_scheduled]: computed tokens of each before the step."""
    sampled: list[Request]
    """Those that sample."""
    sampled_ids: list[str]
    sampled_rows: NDArray[np.int64]
    """int64 [num_sampled]: their rows."""
    departures: int
    """`RowTable.departures` when the step was launched: while it has not changed, all are still running."""
    pooled: list[tuple[Request, int]]
    """Those whose prompt ends here and who get its vector, each with its row."""
    started: dict[str, Started]
    filled: list[FilledBlock]
    """Blocks to withdraw if the step fails."""
