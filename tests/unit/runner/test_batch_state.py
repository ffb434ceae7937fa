"""`BatchState` against lists: whatever differences are applied, tokens, lengths and blocks are those of the oracle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcore.errors import CapacityError
from vcore.interfaces.step import NewRow, SchedulerOutput
from vcore.runner.batch_state import BatchState, TokenView
from vcore.sampling_params import SamplingParams

ROWS, LENGTH, BLOCK = 5, 24, 4
GREEDY = SamplingParams(temperature=0)


@dataclass
class NaiveRow:
    tokens: list[int | None]
    """None: not on the host yet."""
    computed: int
    blocks: list[list[int]]
    """By group."""
    epoch: int


def new_row(
    row: int, tokens: list[int], *blocks: list[int], computed: int = 0, num_prompt: int | None = None
) -> NewRow:
    return NewRow(
        row=row,
        request_id=str(row),
        token_ids=tokens,
        num_prompt_tokens=len(tokens) if num_prompt is None else num_prompt,
        num_computed_tokens=computed,
        block_ids=[list(ids) for ids in blocks],
        params=GREEDY,
    )


def difference(**fields: object) -> SchedulerOutput:
    empty = np.empty(0, dtype=np.int32)
    return SchedulerOutput(step_id=0, rows=empty, num_tokens=empty, samples=empty.astype(bool), **fields)  # type: ignore[arg-type]


def make_state(num_groups: int = 1) -> BatchState:
    state = BatchState(max_num_seqs=ROWS, max_model_len=LENGTH, block_size=BLOCK)
    state.set_groups([None, 8, 3][:num_groups])
    return state


def check(state: BatchState, naive: dict[int, NaiveRow]) -> None:
    for row in range(ROWS):
        assert state.active[row] == (row in naive)
    for row, expected in naive.items():
        assert state.num_tokens[row] == len(expected.tokens)
        assert state.num_computed[row] == expected.computed
        assert state.block_tables[:, row, : state.num_blocks[row]].tolist() == expected.blocks
        assert state.num_unknown[row] == sum(token is None for token in expected.tokens)
        for position, token in enumerate(expected.tokens):
            assert token is None or state.token_ids[row, position] == token
        known = [token for token in expected.tokens if token is not None]
        assert list(TokenView(state, row, 0)) == known


def draw_passed(data: st.DataObject, naive: dict[int, NaiveRow]) -> list[tuple[int, int, int]]:
    """Some entries that become null."""
    entries = [
        (group, row, column)
        for row, state in naive.items()
        for group, ids in enumerate(state.blocks)
        for column in range(len(ids))
    ]
    passed = data.draw(st.lists(st.sampled_from(entries), max_size=3)) if entries else []
    for group, row, column in passed:
        naive[row].blocks[group][column] = 0
    return passed


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_sequence_of_differences_gives_what_the_oracle_has(data: st.DataObject) -> None:
    num_groups = data.draw(st.integers(1, 3))
    state, naive = make_state(num_groups), {}
    waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray, list[NaiveRow], list[int]]] = []
    for _ in range(data.draw(st.integers(1, 12))):
        passed = draw_passed(data, naive)
        freed = data.draw(st.lists(st.sampled_from(sorted(naive)), unique=True)) if naive else []
        for row in freed:
            del naive[row]
        free = [row for row in range(ROWS) if row not in naive]
        new = []
        for row in data.draw(st.lists(st.sampled_from(free), unique=True)) if free else []:
            tokens = data.draw(st.lists(st.integers(0, 99), min_size=1, max_size=10))
            column = st.lists(st.integers(0, 99), min_size=num_groups, max_size=num_groups)
            columns = data.draw(st.lists(column, min_size=1, max_size=3))
            blocks = [[column[group] for column in columns] for group in range(num_groups)]
            naive[row] = NaiveRow(list(tokens), data.draw(st.integers(0, len(tokens) - 1)), blocks, 0)
            new.append(new_row(row, tokens, *blocks, computed=naive[row].computed))
        grown = []
        for row in data.draw(st.lists(st.sampled_from(sorted(naive)), max_size=6)) if naive else []:
            if len(naive[row].blocks[0]) < LENGTH // BLOCK:
                grown.append((row, data.draw(st.lists(st.integers(1, 99), min_size=num_groups, max_size=num_groups))))
                for ids, block_id in zip(naive[row].blocks, grown[-1][1], strict=True):
                    ids.append(block_id)
        state.apply(
            difference(
                passed_entries=np.array(passed, dtype=np.int32).reshape(-1, 3),
                freed_rows=freed,
                new_rows=new,
                grown_rows=np.array([row for row, _ in grown], dtype=np.int32),
                grown_block_ids=np.array([ids for _, ids in grown], dtype=np.int32).reshape(-1, num_groups),
            )
        )
        check(state, naive)
        rows = [row for row in naive if len(naive[row].tokens) < LENGTH and data.draw(st.booleans())]
        if rows:
            index = np.array(rows, dtype=np.int64)
            token_ids = np.array([data.draw(st.integers(0, 99)) for _ in rows], dtype=np.int64)
            if data.draw(st.booleans()) and not any(None in naive[row].tokens for row in rows):
                state.append_tokens(index, token_ids)
                for row, token in zip(rows, token_ids.tolist(), strict=True):
                    naive[row].tokens.append(token)
            else:
                waiting.append(
                    (index, state.epoch[index], state.num_tokens[index], [naive[r] for r in rows], token_ids.tolist())
                )
                state.append_unknown(index)
                for row in rows:
                    naive[row].tokens.append(None)
            counts = np.array([len(naive[row].tokens) - naive[row].computed - 1 for row in rows], dtype=np.int32)
            state.advance(index, counts)
            for row, count in zip(rows, counts.tolist(), strict=True):
                naive[row].computed += count
        if waiting and data.draw(st.booleans()):
            index, epochs, positions, owners, tokens = waiting.pop(0)
            state.fill_tokens(index, epochs, positions, np.array(tokens, dtype=np.int64))
            for owner, token in zip(owners, tokens, strict=True):
                owner.tokens[owner.tokens.index(None)] = token
        check(state, naive)


def test_a_late_token_never_lands_in_the_request_that_took_its_row() -> None:
    state = make_state()
    state.apply(difference(new_rows=[new_row(2, [7, 8], [1])]))
    rows = np.array([2])
    epochs, positions = state.epoch[rows], state.num_tokens[rows]
    state.append_unknown(rows)
    state.apply(difference(freed_rows=[2], new_rows=[new_row(2, [1, 2, 3, 4], [5])]))
    state.fill_tokens(rows, epochs, positions, np.array([99]))
    assert state.token_ids[2, :5].tolist() == [1, 2, 3, 4, 0]
    assert state.num_tokens[2] == 4
    assert state.num_unknown[2] == 0


def test_blocks_of_one_row_that_grows_twice_keep_their_order() -> None:
    state = make_state()
    state.apply(difference(new_rows=[new_row(0, [1], [10]), new_row(3, [1], [20])]))
    state.apply(
        difference(
            grown_rows=np.array([3, 0, 3, 3], dtype=np.int32),
            grown_block_ids=np.array([[21], [11], [22], [23]], dtype=np.int32),
        )
    )
    assert state.block_tables[0, 3, :4].tolist() == [20, 21, 22, 23]
    assert state.block_tables[0, 0, :2].tolist() == [10, 11]


def test_freeing_a_row_that_is_not_in_use_does_nothing() -> None:
    state = make_state()
    state.apply(difference(freed_rows=[1]))
    assert not state.active.any()


def test_an_entry_that_passes_as_its_row_changes_hands_is_the_old_requests() -> None:
    state = make_state(2)
    state.apply(difference(new_rows=[new_row(1, [1], [4, 5], [6, 7])]))
    passed = np.array([[1, 1, 0]], dtype=np.int32)
    state.apply(difference(passed_entries=passed, freed_rows=[1], new_rows=[new_row(1, [2], [8, 9], [2, 3])]))
    assert state.block_tables[:, 1, :2].tolist() == [[8, 9], [2, 3]]


def test_groups_are_set_before_rows_are_taken() -> None:
    state = make_state()
    state.apply(difference(new_rows=[new_row(1, [1], [1])]))
    with pytest.raises(AssertionError, match="rows are in use"):
        state.set_groups([None, 4])


def test_a_row_in_use_is_not_given_away() -> None:
    state = make_state()
    state.apply(difference(new_rows=[new_row(1, [1], [1])]))
    with pytest.raises(AssertionError, match="row 1 is in use"):
        state.apply(difference(new_rows=[new_row(1, [2], [2])]))


def test_a_view_grows_with_its_row_and_reads_like_a_list() -> None:
    state = make_state()
    state.apply(difference(new_rows=[new_row(1, [5, 6, 7], [1], num_prompt=2)]))
    prompt, output = TokenView(state, 1, 0, 2), TokenView(state, 1, 2)
    state.append_tokens(np.array([1]), np.array([8]))
    assert list(prompt) == [5, 6]
    assert list(output) == [7, 8]
    assert (output[-1], output[0:1], len(output)) == (8, [7], 2)
    with pytest.raises(IndexError):
        _ = output[2]


def test_more_rows_than_memory_holds_are_refused_with_what_to_lower() -> None:
    with pytest.raises(CapacityError, match=r"2,147,483,647 requests .* lower scheduler\.max_num_seqs"):
        BatchState(max_num_seqs=2**31 - 1, max_model_len=2**31 - 1, block_size=16)
