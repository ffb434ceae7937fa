"""`ProcessorSet` through the sampler: who is told what, one call for all rows, failures that stay with their row."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from vcore.errors import RequestError
from vcore.interfaces.logits import LogitsProcessor, ProcessorRow
from vcore.interfaces.step import NewRow, SchedulerOutput
from vcore.runner.batch_state import BatchState
from vcore.runner.sampler import Sampled, Sampler
from vcore.runner.sampling_plan import plan_sampling
from vcore.runner.sampling_state import SamplingState
from vcore.runner.staging import SharedStaging
from vcore.sampling_params import SamplingParams

VOCAB = 10
CPU = torch.device("cpu")


class Only(LogitsProcessor):
    """Lets one token through: the argument ``token``. Fails for the rows and in the ways that it is told to."""

    needs_host_tokens = True

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.changes: list[tuple[list[int], list[int]]] = []
        self.seen: dict[int, tuple[list[int], list[int]]] = {}
        self.prepared: list[Mapping[str, Any]] = []
        self.ready: dict[int, object] = {}
        self.refused: set[int] = set()
        self.broken: set[int] = set()
        self.fault: BaseException = RuntimeError("broken")
        self.wrong_shape = False

    def prepare(self, arguments: Mapping[str, Any]) -> object:
        self.prepared.append(arguments)
        if arguments.get("token") == 13:
            raise ValueError("bad luck")
        return f"for {arguments['token']}"

    def on_batch_change(self, added: Sequence[ProcessorRow], removed: Sequence[int]) -> None:
        self.changes.append(([row.row for row in added], list(removed)))
        if any(row.row in self.refused for row in added):
            raise ValueError("not this one")

    def apply(self, logits: torch.Tensor, rows: Sequence[ProcessorRow]) -> torch.Tensor:
        self.calls.append([row.row for row in rows])
        if any(row.row in self.broken for row in rows):
            raise self.fault
        if self.wrong_shape:
            return logits[:, :3]
        for i, row in enumerate(rows):
            self.seen[row.row] = (list(row.prompt_token_ids), list(row.output_token_ids))
            self.ready[row.row] = row.prepared
            token = row.arguments["token"]
            kept = logits[i, token].item()
            logits[i] = -torch.inf
            logits[i, token] = kept
        return logits


class Bench:
    def __init__(self) -> None:
        self.made: dict[str, Only] = {}
        self.batch = BatchState(max_num_seqs=8, max_model_len=32, block_size=16)
        self.state = SamplingState(self.batch, max_num_seqs=8, vocab_size=VOCAB, device=CPU, make_processor=self._make)
        self.sampler = Sampler(VOCAB, CPU, self.state.penalties)

    def _make(self, name: str) -> LogitsProcessor:
        assert name not in self.made
        self.made[name] = Only()
        return self.made[name]

    def add(
        self,
        row: int,
        *processors: dict[str, object],
        prepared: Mapping[str, object] | None = None,
        **params: object,
    ) -> None:
        new = NewRow(
            row=row,
            request_id=str(row),
            token_ids=[row, 9, 1],
            num_prompt_tokens=2,
            num_computed_tokens=0,
            block_ids=[[1]],
            params=SamplingParams(**{"temperature": 0, "logits_processors": processors, **params}),
            prepared=prepared,
        )
        empty = np.empty(0, dtype=np.int32)
        self.batch.apply(
            SchedulerOutput(step_id=0, new_rows=[new], rows=empty, num_tokens=empty, samples=empty.astype(bool))
        )
        self.state.add(new)

    def remove(self, row: int) -> None:
        self.state.remove(row)
        self.batch.active[row] = False

    def sample(self, *rows: int) -> Sampled:
        index = np.array(rows)
        plan = plan_sampling(self.state, self.batch, index, SharedStaging().put)
        sampled = self.sampler.sample(torch.arange(VOCAB).float().repeat(len(rows), 1), plan)
        self.batch.append_tokens(index, sampled.token_ids.numpy())
        return sampled


def only(token: int, name: str = "only") -> dict[str, object]:
    return {"name": name, "options": {"token": token}}


def test_one_call_serves_all_rows_of_a_processor_and_no_others() -> None:
    bench = Bench()
    bench.add(0, only(4))
    bench.add(1)
    bench.add(2, only(6))
    assert bench.sample(2, 1, 0).token_ids.tolist() == [6, 9, 4]
    assert bench.made["only"].calls == [[2, 0]]
    assert bench.sample(1).token_ids.tolist() == [9]
    assert len(bench.made["only"].calls) == 1


def test_tokens_are_live_views_of_prompt_and_output() -> None:
    bench = Bench()
    bench.add(3, only(4))
    for output in ([1], [1, 4], [1, 4, 4]):
        bench.sample(3)
        assert bench.made["only"].seen[3] == ([3, 9], output)


def test_processors_hear_once_of_rows_that_come_and_go() -> None:
    bench = Bench()
    bench.add(0, only(4))
    bench.add(1, only(5))
    bench.sample(0)
    bench.sample(0, 1)
    bench.remove(0)
    bench.add(0, only(7))  # another request takes the row
    assert bench.sample(0).token_ids.tolist() == [7]
    bench.remove(1)
    bench.add(5, only(3))
    bench.remove(5)  # gone before anyone heard of it
    bench.sample(0)
    assert bench.made["only"].changes == [([0], []), ([1], []), ([], [0]), ([0], []), ([], [1])]


def test_several_processors_of_a_request_all_apply() -> None:
    bench = Bench()
    bench.add(0, only(4, "first"), only(4, "second"))
    bench.add(1, only(5, "second"))
    assert bench.sample(0, 1).token_ids.tolist() == [4, 5]
    assert (bench.made["first"].calls, bench.made["second"].calls) == ([[0]], [[0, 1]])


@pytest.mark.parametrize("fault", [RuntimeError("broken"), SystemExit("broken")])
def test_a_row_that_a_processor_fails_for_fails_alone(fault: BaseException) -> None:
    bench = Bench()
    for row in range(3):
        bench.add(row, only(4 + row))
    bench.sample(0, 1, 2)
    bench.made["only"].broken, bench.made["only"].fault = {1}, fault
    sampled = bench.sample(0, 1, 2)
    assert sampled.errors == {1: f"logits processor 'only' failed: {type(fault).__name__}: broken"}
    assert sampled.token_ids[[0, 2]].tolist() == [4, 6]


@pytest.mark.parametrize(
    ("param", "told"), [("structured_output.regex", "structured_output.regex"), (None, "logits_processors")]
)
def test_a_request_may_be_to_blame_itself(param: str | None, told: str) -> None:
    bench = Bench()
    for row in range(3):
        bench.add(row, only(4 + row))
    bench.sample(0, 1, 2)
    bench.made["only"].broken, bench.made["only"].fault = {1}, RequestError("too complex", param=param)
    sampled = bench.sample(0, 1, 2)
    assert (sampled.errors, sampled.error_params) == ({1: "too complex"}, {1: told})
    assert sampled.token_ids[[0, 2]].tolist() == [4, 6]


def test_a_row_that_a_processor_refuses_fails_alone_and_stays_failed() -> None:
    bench = Bench()
    bench.add(0, only(4))
    bench.sample(0)
    bench.made["only"].refused = {1}
    bench.add(1, only(5))
    bench.add(2, only(6))
    for _ in range(2):
        sampled = bench.sample(0, 1, 2)
        assert sampled.errors == {1: "logits processor 'only' failed: ValueError: not this one"}
        assert sampled.token_ids[[0, 2]].tolist() == [4, 6]


def test_a_result_of_the_wrong_shape_is_an_error_that_says_so() -> None:
    bench = Bench()
    bench.add(0, only(4))
    bench.sample(0)
    bench.made["only"].wrong_shape = True
    assert "apply returned (1, 3); expected a tensor of shape (1, 10)" in bench.sample(0).errors[0]


def test_a_processor_that_raises_as_requests_leave_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.add(0, only(4))
    bench.sample(0)
    bench.made["only"].on_batch_change = lambda added, removed: 1 / 0 if removed else None  # type: ignore[method-assign]
    bench.remove(0)
    bench.add(1, only(5))
    with caplog.at_level(logging.WARNING):
        assert bench.sample(1).token_ids.tolist() == [5]
    assert "logits processor 'only' raised as requests left" in caplog.text


def test_what_was_prepared_arrives_with_the_row_and_what_was_not_is_prepared_then() -> None:
    bench = Bench()
    bench.add(0, only(4), prepared={"only": "beforehand", "another": 1})
    bench.add(1, only(5))
    bench.add(2, only(6), prepared={"only": None})
    bench.sample(0, 1, 2)
    assert bench.made["only"].ready == {0: "beforehand", 1: "for 5", 2: None}
    assert bench.made["only"].prepared == [{"token": 5}]


def test_a_row_whose_preparation_fails_fails_alone() -> None:
    bench = Bench()
    bench.add(0, only(4))
    bench.add(1, only(13))
    sampled = bench.sample(0, 1)
    assert sampled.errors == {1: "logits processor 'only' failed: ValueError: bad luck"}
    assert sampled.token_ids[0] == 4


def test_bans_come_after_processors() -> None:
    bench = Bench()
    bench.add(0, only(4), allowed_token_ids=(3, 5))
    assert bench.sample(0).scores.tolist() == [-torch.inf]


def test_needs_host_tokens_asks_only_for_processors_of_these_rows() -> None:
    bench = Bench()
    bench.add(0, only(4))
    bench.add(1)
    assert bench.state.processors.needs_host_tokens([0, 1])
    assert not bench.state.processors.needs_host_tokens([1])
    bench.made["only"].needs_host_tokens = False
    assert not bench.state.processors.needs_host_tokens([0])
