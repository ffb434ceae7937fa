"""How many blocks a request takes, against counting block by block."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vcore.kv_cache import BlockNeeds

GROUPS = st.lists(st.one_of(st.none(), st.integers(1, 12)), min_size=1, max_size=3).map(tuple)
SIZES = st.integers(1, 6)
CHUNKS = st.integers(1, 9)


def held(window: int | None, size: int, start: int, end: int) -> set[int]:
    """Columns in which tokens lie that the queries at positions `start` to ``end - 1`` see."""
    first = 0 if window is None else max(0, start - window + 1)
    return {position // size for position in range(first, end)}


@settings(max_examples=100, deadline=None)
@given(GROUPS, SIZES, CHUNKS, st.integers(1, 60))
def test_most_blocks_suffice_however_chunks_are_cut_and_are_little_too_many(
    windows: tuple[int | None, ...], size: int, chunk: int, num_tokens: int
) -> None:
    needs = BlockNeeds(size, windows, chunk)
    total = 0
    for window in windows:
        most = max(
            len(held(window, size, start, min(start + count, num_tokens)))
            for start in range(num_tokens)
            for count in range(1, chunk + 1)
        )
        assert BlockNeeds(size, [window], chunk).most_blocks(num_tokens) in (most, most + 1)
        total += most
    assert total <= needs.most_blocks(num_tokens) <= total + len(windows)


@settings(max_examples=100, deadline=None)
@given(GROUPS, SIZES, CHUNKS, st.integers(1, 60))
def test_passed_columns_are_those_that_nobody_sees(
    windows: tuple[int | None, ...], size: int, chunk: int, num_computed: int
) -> None:
    needs = BlockNeeds(size, windows, chunk)
    for group, window in enumerate(windows):
        seen = held(window, size, num_computed, num_computed + 1)
        assert needs.passed(group, num_computed) == min(seen)


@settings(max_examples=100, deadline=None)
@given(GROUPS, SIZES, CHUNKS, st.integers(0, 60), st.integers(1, 80))
def test_the_longest_request_is_the_last_that_fits(
    windows: tuple[int | None, ...], size: int, chunk: int, num_blocks: int, limit: int
) -> None:
    needs = BlockNeeds(size, windows, chunk)
    fitting = [count for count in range(1, limit + 1) if needs.most_blocks(count) <= num_blocks]
    assert needs.most_tokens(num_blocks, limit) == (max(fitting) if fitting else 0)


@settings(max_examples=100, deadline=None)
@given(GROUPS, SIZES, CHUNKS, st.data())
def test_what_is_reserved_covers_every_way_to_the_last_token(
    windows: tuple[int | None, ...], size: int, chunk: int, data: st.DataObject
) -> None:
    """A request that computes all of its tokens in random chunks never draws more than was counted at the start."""
    needs = BlockNeeds(size, windows, chunk)
    num_tokens = data.draw(st.integers(1, 60))
    num_hit = data.draw(st.integers(0, (num_tokens - 1) // size))
    hits = [num_hit - needs.passed(group, num_hit * size) for group in range(len(windows))]
    num_unused = [data.draw(st.integers(0, count)) for count in hits]
    bound = needs.to_admit(num_tokens, num_hit, num_unused)
    assert bound <= needs.most_blocks(num_tokens), "a request alone is admitted"
    computed, columns, drawn = num_hit * size, num_hit, sum(num_unused)
    shared = [count - unused for count, unused in zip(hits, num_unused, strict=True)]
    is_shared = any(shared)
    passed = [needs.passed(group, computed) for group in range(len(windows))]
    while computed < num_tokens:
        for group in range(len(windows)):
            # Of what passes, blocks that others use come first here: they give nothing back.
            count = needs.passed(group, computed) - passed[group]
            drawn -= max(0, count - shared[group])
            shared[group] = max(0, shared[group] - count)
            passed[group] += count
        computed = min(computed + data.draw(st.integers(1, chunk)), num_tokens)
        drawn += (needs.num_columns(computed) - columns) * len(windows)
        columns = needs.num_columns(computed)
        assert drawn <= bound
        if not is_shared:  # what it holds comes back, so from here on this is the bound
            bound = min(bound, drawn + needs.to_catch_up(num_tokens, computed, columns))
    assert needs.to_catch_up(num_tokens, computed, columns) == 0


def test_blocks_that_others_use_take_nothing() -> None:
    assert BlockNeeds(4, [None], 8).to_admit(40, 7, [0]) == 3
    assert BlockNeeds(4, [None], 8).to_admit(40, 7, [2]) == 5
    # A window of 5 holds 1 column of the hit, and 3 more of a chunk.
    assert BlockNeeds(4, [5], 8).to_admit(40, 7, [0]) == 3
    assert BlockNeeds(4, [5], 8).to_admit(40, 7, [1]) == 4
    assert BlockNeeds(4, [None, 5], 8).to_admit(40, 7, [2, 1]) == 9


@settings(max_examples=100, deadline=None)
@given(GROUPS, SIZES, CHUNKS, st.lists(st.tuples(*[st.integers(0, 40)] * 3), max_size=5))
def test_the_sum_over_requests_is_the_sum_of_each(
    windows: tuple[int | None, ...], size: int, chunk: int, rows: list[tuple[int, int, int]]
) -> None:
    needs = BlockNeeds(size, windows, chunk)
    columns = np.array([[num_tokens, computed, count * size] for num_tokens, computed, count in rows], dtype=np.int64)
    columns = columns.reshape(-1, 3)
    assert needs.to_catch_up_all(columns[:, 0], columns[:, 1], columns[:, 2]) == sum(
        needs.to_catch_up(num_tokens, computed, count) for num_tokens, computed, count in rows
    )
