"""What every logits processor keeps to, whoever wrote it: one suite over all that are installed, and over one of ours.

The arguments that a processor needs are taken from its options model's defaults.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

import pytest
import torch

from vcore.config.models import PluginOptions
from vcore.interfaces.logits import LogitsProcessor, LogitsProcessorContext, ProcessorRow
from vcore.plugins.hookspecs import ENTRY_POINT_GROUP
from vcore.plugins.specs import LogitsProcessorSpec

VOCAB, ROWS = 64, 8


class RepeatOptions(PluginOptions):
    """Options of `DampRepeats`."""

    factor: float = 0.5
    """What the last token's logit is lowered by."""


class DampRepeats(LogitsProcessor):
    """Lowers the logit of each row's last token: the suite's own example, so that it never runs empty."""

    needs_host_tokens = True

    def __init__(self, *, options: None, context: LogitsProcessorContext) -> None:
        self._rows: set[int] = set()

    def on_batch_change(self, added: Sequence[ProcessorRow], removed: Sequence[int]) -> None:
        self._rows.difference_update(removed)
        self._rows.update(row.row for row in added)

    def apply(self, logits: torch.Tensor, rows: Sequence[ProcessorRow]) -> torch.Tensor:
        for i, row in enumerate(rows):
            assert row.row in self._rows
            if row.output_token_ids:
                logits[i, row.output_token_ids[-1]] -= row.arguments["factor"]
        return logits


OURS = LogitsProcessorSpec(name="damp_repeats", load=DampRepeats, api="1.0", options=RepeatOptions)


def installed() -> list[LogitsProcessorSpec]:
    specs = [OURS]
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        specs += getattr(entry.load(), "vcore_logits_processors", list)()
    return specs


def resolve(lazy: Any) -> Any:
    if isinstance(lazy, str):
        module, _, name = lazy.partition(":")
        return getattr(importlib.import_module(module), name)
    return lazy


@pytest.fixture(params=installed(), ids=lambda spec: spec.name)
def spec(request: pytest.FixtureRequest) -> LogitsProcessorSpec:
    return request.param


def new_processor(spec: LogitsProcessorSpec) -> LogitsProcessor:
    context = LogitsProcessorContext(vocab_size=VOCAB, device=torch.device("cpu"), max_num_seqs=ROWS)
    return resolve(spec.load)(options=None, context=context)


@pytest.fixture
def processor(spec: LogitsProcessorSpec) -> LogitsProcessor:
    return new_processor(spec)


def make_row(spec: LogitsProcessorSpec, row: int, output: Sequence[int] = (5, 6)) -> ProcessorRow:
    arguments = resolve(spec.options)().model_dump() if spec.options is not None else {}
    prepared = new_processor(spec).prepare(arguments)
    return ProcessorRow(
        row=row, prompt_token_ids=[1, 2, 3], output_token_ids=output, arguments=arguments, prepared=prepared
    )


def logits_of(num_rows: int) -> torch.Tensor:
    return torch.randn(num_rows, VOCAB, generator=torch.Generator().manual_seed(0))


def test_it_gives_logits_of_the_same_shape(spec: LogitsProcessorSpec, processor: LogitsProcessor) -> None:
    rows = [make_row(spec, i) for i in range(3)]
    processor.on_batch_change(rows, [])
    result = processor.apply(logits_of(3), rows)
    assert result.shape == (3, VOCAB)
    assert not result.isnan().any()


def test_a_row_gets_the_same_in_any_company(spec: LogitsProcessorSpec, processor: LogitsProcessor) -> None:
    rows = [make_row(spec, i, [i, i + 1]) for i in range(4)]
    processor.on_batch_change(rows, [])
    together = processor.apply(logits_of(4), rows)
    again = processor.apply(logits_of(4).flip(0), rows[::-1]).flip(0)
    alone = torch.cat([processor.apply(logits_of(4)[i : i + 1].clone(), [rows[i]]) for i in range(4)])
    assert torch.equal(together, again)
    assert torch.equal(together, alone)


def test_rows_leave_and_come_back_as_others(spec: LogitsProcessorSpec, processor: LogitsProcessor) -> None:
    first, second = make_row(spec, 2, [7]), make_row(spec, 2, [9, 9])
    processor.on_batch_change([first], [])
    processor.apply(logits_of(1), [first])
    processor.on_batch_change([second], [2])
    after = processor.apply(logits_of(1), [second])
    fresh = new_processor(spec)
    fresh.on_batch_change([second], [])
    assert torch.equal(after, fresh.apply(logits_of(1), [second]))


def test_an_output_that_is_still_empty_is_no_error(spec: LogitsProcessorSpec, processor: LogitsProcessor) -> None:
    row = make_row(spec, 0, [])
    processor.on_batch_change([row], [])
    assert processor.apply(logits_of(1), [row]).shape == (1, VOCAB)
