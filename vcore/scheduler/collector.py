"""`Collector`: takes in what a step gave: tokens, stops, endings, failures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vcore.engine.request import FinishReason, RequestStatus
from vcore.engine.step_output import StepOutput
from vcore.errors import EngineError
from vcore.interfaces.step import SampledTokens, SchedulerOutput
from vcore.scheduler.lifecycle import Lifecycle
from vcore.scheduler.plan import StepRecord
from vcore.scheduler.request import Request
from vcore.scheduler.stop_checker import StopChecker

__all__ = ["Collector"]


class Collector:
    """Applies the results of steps to the requests of a lifecycle."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        """A collector for the requests of `lifecycle`."""
        self._lifecycle = lifecycle
        self._table = lifecycle.table

    def collect(self, output: SchedulerOutput, sampled: SampledTokens, now: float) -> StepOutput:
        """See `Scheduler.update`."""
        lifecycle = self._lifecycle
        if not lifecycle.in_flight or lifecycle.in_flight[0].output is not output:
            raise EngineError(
                f"step {output.step_id} is not the oldest step in flight; steps are updated in the order in which "
                f"they were scheduled: {[record.output.step_id for record in lifecycle.in_flight]}"
            )
        record = lifecycle.in_flight[0]
        _check(record, sampled)
        lifecycle.in_flight.popleft()
        step = StepOutput(time=now, started=record.started)
        if lifecycle.policy.hears_tokens:
            self._tell_tokens(record)
        if sampled.errors:
            self._end_rows(record, sampled, step)
        if sampled.logprobs or sampled.prompt_logprobs:
            self._name_logprobs(record, sampled, step)
        if sampled.num_per_row is not None or sampled.errors:
            self._collect_ragged(record, sampled, step)
        else:
            self._collect_one_each(record, sampled.token_ids, step)
        if record.pooled:
            self._end_pooled(record, sampled, step)
        if step.token_ids or step.vectors:
            lifecycle.fruitless_preemptions = 0
        step.finished = lifecycle.drain_ended()
        return step

    def fail(self, output: SchedulerOutput, reason: str, now: float) -> StepOutput:
        """See `Scheduler.fail`."""
        lifecycle = self._lifecycle
        step = StepOutput(time=now)
        if any(record.output is output for record in lifecycle.in_flight):
            failed: list[StepRecord] = []
            while not failed or failed[-1].output is not output:
                failed.append(lifecycle.in_flight.pop())
            for record in failed:
                step.started.update(record.started)
                lifecycle.kv.withdraw(record.filled)
                for request in record.requests:
                    if not request.is_finished:
                        lifecycle.end(request, FinishReason.ERROR, reason, failed=True)
                # Whether the ranks heard of these is unknown.
                self._table.free_again(record.output.freed_rows)
        step.finished = lifecycle.drain_ended()
        return step

    def _collect_one_each(self, record: StepRecord, token_ids: NDArray[np.int64], step: StepOutput) -> None:
        """Each request that sampled got one token."""
        if record.departures == self._table.departures:
            self._append(record.sampled, record.sampled_ids, record.sampled_rows, token_ids, step)
            return
        # Some left since the step was launched: those who ended get nothing, those preempted get theirs.
        tokens = token_ids.tolist()
        running = [i for i, request in enumerate(record.sampled) if request.status is RequestStatus.RUNNING]
        self._append(
            [record.sampled[i] for i in running],
            [record.sampled_ids[i] for i in running],
            record.sampled_rows[running],
            token_ids[running],
            step,
        )
        for request, token_id in zip(record.sampled, tokens, strict=True):
            if request.status is RequestStatus.PREEMPTED:
                self._append_preempted(request, token_id, step)

    def _append(
        self,
        requests: list[Request],
        ids: list[str],
        rows: NDArray[np.int64],
        token_ids: NDArray[np.int64],
        step: StepOutput,
    ) -> None:
        """One token for each of these running requests; those who end with it are ended."""
        tokens = token_ids.tolist()
        for request, token_id in zip(requests, tokens, strict=True):
            request.token_ids.append(token_id)
        known = self._table.num_known[rows] + 1
        self._table.num_known[rows] = known
        step.request_ids += ids
        step.token_ids += tokens
        for index in self._lifecycle.stops.candidates(rows, token_ids, known):
            self._end_if_stopped(requests[index])

    def _append_preempted(self, request: Request, token_id: int, step: StepOutput) -> None:
        """A token for a request that was preempted while it was being sampled."""
        request.num_in_flight -= 1
        request.token_ids.append(token_id)
        step.request_ids.append(request.request_id)
        step.token_ids.append(token_id)
        self._end_if_stopped(request)

    def _end_if_stopped(self, request: Request) -> None:
        ending = StopChecker.reason(request)
        if ending is not None:
            self._lifecycle.end(request, *ending)

    def _collect_ragged(self, record: StepRecord, sampled: SampledTokens, step: StepOutput) -> None:
        """Several tokens a row, or none for rows in error: one request at a time."""
        by_row = dict(zip(record.sampled_rows.tolist(), record.sampled, strict=True))
        counts = sampled.num_per_row
        per_row = [1] * len(sampled.rows) if counts is None else counts.tolist()
        tokens = sampled.token_ids.tolist()
        start = 0
        for row, count in zip(sampled.rows.tolist(), per_row, strict=True):
            request = by_row[row]
            for position, token_id in enumerate(tokens[start : start + count]):
                if request.status is RequestStatus.RUNNING:
                    self._table.num_known[row] += 1
                    # One token was counted as being sampled; those beyond it are news.
                    self._table.num_tokens[row] += position > 0
                    request.token_ids.append(token_id)
                    step.request_ids.append(request.request_id)
                    step.token_ids.append(token_id)
                    self._end_if_stopped(request)
                elif request.status is RequestStatus.PREEMPTED:
                    request.num_in_flight += position > 0
                    self._append_preempted(request, token_id, step)
            start += count

    def _end_pooled(self, record: StepRecord, sampled: SampledTokens, step: StepOutput) -> None:
        """Those whose prompt was computed end with its vector, also if they were preempted since; the failed have."""
        for request, row in record.pooled:
            if not request.is_finished:
                step.vectors[request.request_id] = sampled.vectors[row].tobytes()
                self._lifecycle.end(request, FinishReason.STOP)

    def _end_rows(self, record: StepRecord, sampled: SampledTokens, step: StepOutput) -> None:
        """End the requests of these rows alone; what they computed may be wrong, so it is not found again."""
        for request, row in zip(record.requests, record.output.rows.tolist(), strict=True):
            if row in sampled.errors and not request.is_finished:
                self._lifecycle.kv.forget(request.blocks)
                self._lifecycle.end(request, FinishReason.ERROR, sampled.errors[row], failed=True)
                if row in sampled.error_params:
                    step.error_params[request.request_id] = sampled.error_params[row]

    def _name_logprobs(self, record: StepRecord, sampled: SampledTokens, step: StepOutput) -> None:
        """Logprobs by request instead of by row."""
        rows, starts = record.output.rows.tolist(), record.starts.tolist()
        for request, row, start in zip(record.requests, rows, starts, strict=True):
            if request.is_finished:
                continue
            if row in sampled.logprobs:
                step.logprobs[request.request_id] = sampled.logprobs[row]
            if row in sampled.prompt_logprobs:
                # A request that was preempted computes from its beginning once more, what it has told of as well.
                news = sampled.prompt_logprobs[row][max(0, request.prompt_logprobs_told - start) :]
                request.prompt_logprobs_told += len(news)
                if news:
                    step.prompt_logprobs[request.request_id] = news

    def _tell_tokens(self, record: StepRecord) -> None:
        counts = record.output.num_tokens.tolist()
        alive = [i for i, request in enumerate(record.requests) if not request.is_finished]
        self._lifecycle.policy.on_tokens([record.requests[i].view for i in alive], [counts[i] for i in alive])


def _check(record: StepRecord, sampled: SampledTokens) -> None:
    """Refuse tokens that are not those of the step."""
    rows = sampled.rows
    expected = record.sampled_rows
    if len(rows) != len(expected) or np.count_nonzero(rows != expected):
        wanted = expected.tolist()
        # Rows in error may be left out.
        if rows.tolist() != [row for row in wanted if row not in sampled.errors or row in rows]:
            raise EngineError(
                f"step {record.output.step_id}: tokens came for rows {rows.tolist()}, expected {wanted}; "
                "an executor answers for the rows that sample, in the order of SchedulerOutput.rows"
            )
    num_tokens = len(rows)
    if sampled.num_per_row is not None:
        if len(sampled.num_per_row) != len(rows) or np.count_nonzero(sampled.num_per_row < 1):
            raise EngineError(
                f"step {record.output.step_id}: num_per_row is {sampled.num_per_row.tolist()}, expected at least one "
                f"token for each of {len(rows)} rows"
            )
        num_tokens = int(sampled.num_per_row.sum())
    if missing := [row for _, row in record.pooled if row not in sampled.vectors and row not in sampled.errors]:
        raise EngineError(
            f"step {record.output.step_id}: no vectors came for rows {missing}; an executor answers with one for each "
            "row that pools and has reached the end of its prompt, or says in SampledTokens.errors why there is none"
        )
    if len(sampled.token_ids) != num_tokens:
        raise EngineError(f"step {record.output.step_id}: {len(sampled.token_ids)} tokens came, expected {num_tokens}")
