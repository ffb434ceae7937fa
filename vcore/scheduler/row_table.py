"""`RowTable`: the rows of the persistent batch, with the counts of the requests that hold them.

Counts are numpy arrays indexed by row, so that a step over hundreds of decoding requests touches
Python objects only where something happens:

    0 ........ num_computed ........ num_known ........ num_tokens ......... capacity
      computed or      tokens with a       being sampled in        room in the
      launched         known id            uncollected steps       row's blocks

(With steps in flight num_computed may lie between num_known and num_tokens.)
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vcore.scheduler.request import PolicyView, Request

__all__ = ["NEVER", "Batch", "RowTable"]

NEVER = 2**62
"""A count of tokens that no request reaches."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The running requests, in order of admission. Made anew when one comes or goes; never changed."""

    requests: list[Request]
    ids: list[str]
    rows: NDArray[np.int64]
    """int64 [n]: for indexing."""
    rows32: NDArray[np.int32]
    """int32 [n]: the same, for `SchedulerOutput`."""
    version: int
    """`RowTable.departures` when it was made."""

    @property
    def views(self) -> list[PolicyView]:
        """A fresh list of the requests as policies see them."""
        return [request.view for request in self.requests]


class RowTable:
    """Who holds which row, and what the core counts of each."""

    def __init__(self, max_rows: int) -> None:
        """`max_rows` free rows."""
        self.num_tokens = np.zeros(max_rows, dtype=np.int64)
        """Known tokens and those being sampled."""
        self.num_known = np.zeros(max_rows, dtype=np.int64)
        self.num_computed = np.zeros(max_rows, dtype=np.int64)
        self.capacity = np.zeros(max_rows, dtype=np.int64)
        """Tokens that the row's blocks have room for."""
        self.publish_at = np.zeros(max_rows, dtype=np.int64)
        """Computed tokens at which the next block is full and becomes findable; `NEVER` if it must not."""
        self.pass_at = np.full(max_rows, NEVER, dtype=np.int64)
        """Computed tokens at which a sliding window leaves the row's next block behind; `NEVER` without windows."""
        self.limits = np.zeros(max_rows, dtype=np.int64)
        """Tokens at which the request ends; `NEVER` for one that pools, which gets none."""
        self.pools = np.zeros(max_rows, dtype=np.bool_)
        """Whether the request ends with a vector when its prompt is computed; it samples nothing then."""
        self.num_pooling = 0
        """How many running requests do."""
        self.departures = 0
        """How many requests left their row so far."""
        self._free = list(range(max_rows))
        self._freed: list[int] = []
        self._running: dict[str, Request] = {}
        self._batch: Batch | None = None

    @property
    def num_running(self) -> int:
        """Requests that hold a row."""
        return len(self._running)

    @property
    def has_free_row(self) -> bool:
        """Whether another request can run."""
        return bool(self._free)

    def batch(self) -> Batch:
        """The running requests."""
        if self._batch is None:
            requests = list(self._running.values())
            rows = np.fromiter((request.row for request in requests), dtype=np.int64, count=len(requests))
            ids = list(self._running)
            self._batch = Batch(requests, ids, rows, rows.astype(np.int32), self.departures)
        return self._batch

    def take(self, request: Request, num_computed: int) -> int:
        """Give a request the lowest free row; the caller sets `capacity`, `publish_at` and `pass_at`."""
        row = heapq.heappop(self._free)
        request.row = row
        self._running[request.request_id] = request
        self._batch = None
        self.num_tokens[row] = self.num_known[row] = len(request.token_ids)
        self.num_computed[row] = num_computed
        pools = request.engine.pooling is not None
        self.limits[row] = NEVER if pools else request.max_num_tokens
        self.pools[row] = pools
        self.num_pooling += pools
        return row

    def give_back(self, request: Request) -> None:
        """Free the request's row, in order that the next step says so."""
        del self._running[request.request_id]
        self._batch = None
        self.departures += 1
        self.num_pooling -= request.engine.pooling is not None
        heapq.heappush(self._free, request.row)
        self._freed.append(request.row)

    def stop_publishing(self) -> None:
        """No request that runs now makes a block findable any more."""
        self.publish_at[[request.row for request in self._running.values()]] = NEVER

    def free_again(self, rows: list[int]) -> None:
        """Say once more that these rows were freed, because the step that said so failed."""
        self._freed.extend(rows)

    def drain_freed(self) -> list[int]:
        """Rows that were freed since the last call, each once."""
        freed = list(dict.fromkeys(self._freed))
        self._freed.clear()
        return freed
