"""Where the chunks of rows that are followed lie in a step."""

from __future__ import annotations

import numpy as np

from vcore.runner.row_chunks import RowChunk, chunks_of


def test_only_rows_that_are_followed_have_chunks() -> None:
    rows = np.array([4, 0, 7, 2])
    starts = np.array([9, 0, 16, 3])
    query_start_loc = np.array([0, 1, 6, 7, 10], dtype=np.int32)
    found = chunks_of({2: "state", 0: "state", 5: "elsewhere"}, rows, starts, query_start_loc)
    assert found == [RowChunk(0, 1, 6, 0), RowChunk(2, 7, 10, 3)]
    assert [chunk.stop for chunk in found] == [5, 6]
    assert all(type(value) is int for chunk in found for value in chunk)  # they go into messages and dictionaries
    assert chunks_of((), rows, starts, query_start_loc) == []
