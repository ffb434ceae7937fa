"""`InputBuilder` against a loop over tokens: ids, positions, slots, tables and indices."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vcore.interfaces.step import NewRow, SchedulerOutput
from vcore.runner.batch_state import BatchState
from vcore.runner.input_builder import ForwardBatch, InputBuilder
from vcore.runner.staging import PackedStaging, SharedStaging, Staging
from vcore.sampling_params import SamplingParams

ROWS, LENGTH = 6, 40
GREEDY = SamplingParams(temperature=0)


def check(batch: ForwardBatch, state: BatchState, output: SchedulerOutput) -> None:
    """Compare with what a loop over rows and tokens gives."""
    ids, positions, starts, lengths, last = [], [], [0], [], []
    slots: list[list[int]] = [[] for _ in state.windows]
    size = state.block_size
    for row, count in zip(output.rows.tolist(), output.num_tokens.tolist(), strict=True):
        computed = int(state.num_computed[row])
        for position in range(computed, computed + count):
            ids.append(int(state.token_ids[row, position]))
            positions.append(position)
            for of_group, table in zip(slots, state.block_tables, strict=True):
                of_group.append(int(table[row, position // size]) * size + position % size)
        starts.append(starts[-1] + count)
        lengths.append(computed + count)
        last.append(starts[-1] - 1)
    assert (batch.input_ids.tolist(), batch.positions.tolist()) == (ids, positions)
    assert len(batch.groups) == len(state.windows)
    for group, metadata in enumerate(batch.groups):
        assert metadata.slot_mapping.tolist() == slots[group]
        assert metadata.query_start_loc.tolist() == metadata.query_start_loc_cpu.tolist() == starts
        assert metadata.seq_lens.tolist() == metadata.seq_lens_cpu.tolist() == lengths
        assert (metadata.num_tokens, metadata.num_requests) == (len(ids), len(lengths))
        assert (metadata.max_query_len, metadata.max_seq_len) == (max(output.num_tokens), max(lengths))
        assert metadata.num_decodes == output.num_decodes
        assert metadata.sliding_window == state.windows[group]
        width = metadata.block_table.shape[1]
        assert width % 16 == 0 or width == state.max_blocks
        for i, (row, length) in enumerate(zip(output.rows.tolist(), lengths, strict=True)):
            num_blocks = -(-length // size)
            expected = state.block_tables[group, row, :num_blocks].tolist()
            assert metadata.block_table[i, :num_blocks].tolist() == expected
        assert metadata.slot_mapping.dtype == torch.int64
        dtypes = [metadata.query_start_loc.dtype, metadata.seq_lens.dtype, metadata.block_table.dtype]
        assert dtypes == [torch.int32] * 3
    indices = range(len(ids)) if batch.logits_indices is None else batch.logits_indices.tolist()
    assert list(indices) == [index for index, wanted in zip(last, output.samples, strict=True) if wanted]
    assert batch.sampled_rows.tolist() == output.rows[output.samples].tolist()
    assert batch.rows.tolist() == output.rows.tolist()
    assert [batch.input_ids.dtype, batch.positions.dtype] == [torch.int64] * 2


def make_state(data: st.DataObject, block_size: int) -> BatchState:
    state = BatchState(max_num_seqs=ROWS, max_model_len=LENGTH, block_size=block_size)
    state.set_groups(data.draw(st.sampled_from([(None,), (5,), (None, 5, 1)])))
    generator = np.random.default_rng(data.draw(st.integers(0, 1000)))
    new_rows = [
        NewRow(
            row=row,
            request_id=str(row),
            token_ids=generator.integers(0, 500, LENGTH).tolist(),
            num_prompt_tokens=LENGTH,
            num_computed_tokens=data.draw(st.integers(0, LENGTH - 1)),
            block_ids=[generator.permutation(200)[: -(-LENGTH // block_size)].tolist() for _ in state.windows],
            params=GREEDY,
        )
        for row in range(ROWS)
    ]
    empty = np.empty(0, dtype=np.int32)
    state.apply(SchedulerOutput(step_id=0, new_rows=new_rows, rows=empty, num_tokens=empty, samples=empty.astype(bool)))
    return state


def draw_output(data: st.DataObject, state: BatchState, *, decodes_only: bool) -> SchedulerOutput:
    rows = data.draw(st.lists(st.integers(0, ROWS - 1), min_size=1, unique=True))
    left = {row: LENGTH - int(state.num_computed[row]) for row in rows}
    counts = {row: 1 if decodes_only else data.draw(st.integers(1, left[row])) for row in rows}
    rows.sort(key=lambda row: counts[row] != 1)
    samples = [data.draw(st.booleans()) for _ in rows]
    return SchedulerOutput(
        step_id=0,
        rows=np.array(rows, dtype=np.int32),
        num_tokens=np.array([counts[row] for row in rows], dtype=np.int32),
        samples=np.array(samples),
        num_decodes=sum(counts[row] == 1 for row in rows),
    )


@pytest.mark.parametrize("decodes_only", [True, False])
@pytest.mark.parametrize("staging", [SharedStaging(), PackedStaging(torch.device("cpu"))], ids=["shared", "packed"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_batch_is_what_a_loop_over_tokens_gives(staging: Staging, decodes_only: bool, data: st.DataObject) -> None:
    state = make_state(data, data.draw(st.sampled_from([1, 3, 4, 16])))
    builder = InputBuilder(state, staging, 8)  # smaller than some steps: it must grow
    for _ in range(2):
        output = draw_output(data, state, decodes_only=decodes_only)
        check(builder.build(output), state, output)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_tokens_that_the_host_does_not_know_come_from_the_device(data: st.DataObject) -> None:
    state = make_state(data, 4)
    output = draw_output(data, state, decodes_only=data.draw(st.booleans()))
    unknown = [row for row in output.rows.tolist() if data.draw(st.booleans())]
    last = torch.arange(1000, 1000 + ROWS)
    expected = {
        row: int(state.num_computed[row]) + int(n) for row, n in zip(output.rows, output.num_tokens, strict=True)
    }
    for row in range(ROWS):  # each row's tokens end where this step does, or just after
        state.num_tokens[row] = expected.get(row, LENGTH)
        state.num_unknown[row] = row in unknown
        if row in unknown:
            state.token_ids[row, expected[row] - 1] = 1000 + row  # what `check` is to find
    placeholder = state.token_ids.copy()
    for row in unknown:
        state.token_ids[row, expected[row] - 1] = 0
    batch = InputBuilder(state, PackedStaging(torch.device("cpu")), 64, send_rows=True).build(output, last)
    state.token_ids[:] = placeholder
    check(batch, state, output)
    assert batch.sampled_rows_on_device is not None
    assert batch.sampled_rows_on_device.tolist() == batch.sampled_rows.tolist()


def test_a_chunk_that_ends_before_the_unknown_token_reads_the_host() -> None:
    state = BatchState(max_num_seqs=1, max_model_len=8, block_size=4)
    state.token_ids[0, :4] = [5, 6, 7, 0]
    state.num_tokens[0], state.num_unknown[0] = 4, 1
    output = SchedulerOutput(
        step_id=0,
        rows=np.array([0], dtype=np.int32),
        num_tokens=np.array([3], dtype=np.int32),
        samples=np.array([False]),
    )
    batch = InputBuilder(state, SharedStaging(), 8).build(output, torch.tensor([99]))
    assert batch.input_ids.tolist() == [5, 6, 7]


def test_later_changes_of_the_state_do_not_reach_a_batch() -> None:
    state = BatchState(max_num_seqs=2, max_model_len=8, block_size=4)
    state.token_ids[:, 0], state.block_tables[0, :, 0] = [3, 4], [1, 2]
    output = SchedulerOutput(
        step_id=0,
        rows=np.array([0, 1], dtype=np.int32),
        num_tokens=np.array([1, 1], dtype=np.int32),
        samples=np.array([True, True]),
        num_decodes=2,
    )
    batch = InputBuilder(state, SharedStaging(), 8).build(output)
    state.token_ids[:], state.block_tables[:], state.num_computed[:] = 0, 0, 5
    assert batch.input_ids.tolist() == [3, 4]
    assert batch.positions.tolist() == [0, 0]
    assert batch.metadata.block_table[:, 0].tolist() == [1, 2]


def test_a_limit_beyond_what_the_rows_hold_costs_no_memory() -> None:
    tracemalloc.start()
    InputBuilder(BatchState(max_num_seqs=2, max_model_len=8, block_size=4), SharedStaging(), 2**31 - 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
