"""`StopChecker`: which requests end with the token that they just got: EOS, stop tokens, length.

Owns the limits of each row. Knows nothing of text: stop strings are found outside the core.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vcore.engine.request import FinishReason
from vcore.scheduler.request import Request

__all__ = ["StopChecker"]

_MAX_COLUMNS = 8


class StopChecker:
    """A test over the whole batch that finds the few rows that may end, and a rule for one request.

    `candidates` may name a row too many (it does not look at `min_tokens`), never one too few;
    `reason` decides.
    """

    def __init__(self, max_rows: int) -> None:
        """Room for rows 0 to ``max_rows - 1``."""
        self._limits = np.zeros(max_rows, dtype=np.int64)
        self._stop_ids = np.full((max_rows, 2), -1, dtype=np.int64)  # [row, stop id], padded with -1
        # Rows with more stop ids than columns, which are rare, do not widen the test for all.
        self._wide: dict[int, frozenset[int]] = {}

    def set_row(self, row: int, request: Request) -> None:
        """From now on the row is the request's."""
        self._limits[row] = request.max_num_tokens
        self._wide.pop(row, None)
        stop_ids = request.engine.eos_token_ids + request.engine.params.stop_token_ids
        self._stop_ids[row] = -1
        if len(stop_ids) > _MAX_COLUMNS:
            self._wide[row] = frozenset(stop_ids)
            return
        missing = len(stop_ids) - self._stop_ids.shape[1]
        if missing > 0:
            self._stop_ids = np.pad(self._stop_ids, ((0, 0), (0, missing)), constant_values=-1)
        self._stop_ids[row, : len(stop_ids)] = stop_ids

    def candidates(
        self, rows: NDArray[np.int64], token_ids: NDArray[np.int64], num_known: NDArray[np.int64]
    ) -> list[int]:
        """Which of `rows` may end.

        Args:
            rows: int64 [n].
            token_ids: int64 [n]: the token that each just got.
            num_known: int64 [n]: tokens of each, this one included.

        Returns:
            Indices into `rows`, in order.
        """
        at_limit = num_known >= self._limits[rows]
        hit = self._stop_ids[rows] == token_ids[:, None]  # [n, column]
        if not self._wide:
            # count_nonzero is several times faster than any() on arrays this small.
            if not np.count_nonzero(at_limit) and not np.count_nonzero(hit):
                return []
            return np.flatnonzero(at_limit | hit.any(axis=1)).tolist()
        at_limit |= hit.any(axis=1)
        for index, (row, token_id) in enumerate(zip(rows.tolist(), token_ids.tolist(), strict=True)):
            if token_id in self._wide.get(row, ()):
                at_limit[index] = True
        return np.flatnonzero(at_limit).tolist()

    @staticmethod
    def reason(request: Request) -> tuple[FinishReason, int | None] | None:
        """Why the request ends with its last token, and the stop token id if it was one; None if it goes on.

        Before `min_tokens` neither EOS nor a stop token counts. EOS has no stop reason.
        """
        token_id = request.token_ids[-1]
        if request.num_output_tokens >= request.engine.params.min_tokens:
            if token_id in request.engine.eos_token_ids:
                return FinishReason.STOP, None
            if token_id in request.engine.params.stop_token_ids:
                return FinishReason.STOP, token_id
        if len(request.token_ids) >= request.max_num_tokens:
            return FinishReason.LENGTH, None
        return None
