"""`RowChunk`: the part of one row's prompt that a step computes, and where it lies in the batch."""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["RowChunk", "chunks_of"]


class RowChunk(NamedTuple):
    """One row's tokens in a step."""

    row: int
    begin: int
    """Index in the batch of its first token."""
    end: int
    """Behind its last one."""
    start: int
    """Tokens of the row that were computed before the step."""

    @property
    def stop(self) -> int:
        """Tokens of the row that are computed after it."""
        return self.start + self.end - self.begin


def chunks_of(
    followed: Container[int],
    rows: NDArray[np.int64],
    starts: NDArray[np.int64],
    query_start_loc: NDArray[np.int32],
) -> list[RowChunk]:
    """The chunks of those rows of a step that somebody follows.

    Args:
        followed: the rows.
        rows: int64 [num_scheduled].
        starts: int64 [num_scheduled], computed tokens before the step.
        query_start_loc: int32 [num_scheduled + 1].
    """
    return [
        RowChunk(row, int(query_start_loc[index]), int(query_start_loc[index + 1]), int(starts[index]))
        for index, row in enumerate(rows.tolist())
        if row in followed
    ]
