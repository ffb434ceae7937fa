"""`StepLog`: what each step of an engine computed, and how long that took. `StepRecorder`: who writes it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vcore.config.models import PluginOptions
from vcore.executor.uniproc import UniprocExecutor
from vcore.interfaces.executor import ExecutorContext, StepHandle
from vcore.interfaces.step import SchedulerOutput
from vcore.plugins import ExecutorSpec
from vcore.simulate.step_time import StepLoad

__all__ = ["RECORDER", "StepEntry", "StepLog", "StepRecorder", "recorder_spec"]

RECORDER = "step_recorder"
"""The name of the recorder as an executor."""


@dataclass(slots=True)
class StepEntry:
    """One step."""

    rows: list[tuple[str, int]]
    """Request and tokens of each row, in the order of `SchedulerOutput.rows`."""
    hits: dict[str, int]
    """Cached tokens of each request that takes a row."""
    load: StepLoad
    seconds: float = 0.0
    """From the beginning of its planning to that of the next step's, or to the end if nothing is left to do."""


@dataclass(slots=True)
class StepLog:
    """Steps in order. Of a scheduler with one step in flight."""

    entries: list[StepEntry] = field(default_factory=list)
    _computed: dict[int, int] = field(default_factory=dict)
    _request_of_row: dict[int, str] = field(default_factory=dict)

    def add(self, output: SchedulerOutput) -> None:
        """Write a step down as it is launched."""
        for new in output.new_rows:
            self._computed[new.row] = new.num_computed_tokens
            self._request_of_row[new.row] = new.request_id
        rows, counts = output.rows.tolist(), output.num_tokens.tolist()
        starts = [self._computed[row] for row in rows]
        for row, start, count in zip(rows, starts, counts, strict=True):
            self._computed[row] = start + count
        self.entries.append(
            StepEntry(
                rows=[(self._request_of_row[row], count) for row, count in zip(rows, counts, strict=True)],
                hits={new.request_id: new.num_computed_tokens for new in output.new_rows},
                load=StepLoad.of(output, np.array(starts, dtype=np.int64)),
            )
        )


class StepRecorder(UniprocExecutor):
    """One rank in this process; writes each step down before it launches it."""

    def __init__(self, log: StepLog, context: ExecutorContext) -> None:
        """Args:
        log: where steps are written.
        context: what the core tells an executor.
        """
        super().__init__(options=None, context=context)
        self._log = log

    def launch(self, output: SchedulerOutput) -> StepHandle:
        """See `UniprocExecutor.launch`."""
        self._log.add(output)
        return super().launch(output)


def recorder_spec(log: StepLog) -> ExecutorSpec:
    """The recorder as a plugin object, which ``executor: step_recorder`` chooses."""

    def load(*, options: PluginOptions | None, context: ExecutorContext) -> StepRecorder:
        return StepRecorder(log, context)

    return ExecutorSpec(name=RECORDER, load=load, api="1.0", summary="uniproc, with a log of steps")
