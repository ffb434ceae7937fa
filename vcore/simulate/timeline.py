"""`Timeline`: when each request of a simulation got its tokens. All times are simulated seconds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Timeline"]


class Timeline:
    """Times by request, and the gaps between tokens of all requests together.

    A gap is kept once for all rows that have the same, with their number: where hundreds decode in step, most do.
    """

    def __init__(self, arrivals: NDArray[np.float64]) -> None:
        """Args:
        arrivals: float64 [num_requests].
        """
        count = len(arrivals)
        self.arrived = arrivals
        self.started = np.full(count, np.nan)
        """When a step first computed the request; nan if none has."""
        self.first = np.full(count, np.nan)
        """When its first token was known."""
        self.last = np.full(count, np.nan)
        """When its last token so far was."""
        self.finished = np.full(count, np.nan)
        """When it ended."""
        self.num_tokens = np.zeros(count, dtype=np.int64)
        """Tokens that it has got."""
        self.num_cached = np.zeros(count, dtype=np.int64)
        """Tokens of its prompt that were cached when it started."""
        self.num_preemptions = np.zeros(count, dtype=np.int64)
        self.rejected = np.zeros(count, dtype=np.bool_)
        """Whether the scheduling policy refused it."""
        self._gaps: list[NDArray[np.float64]] = []
        self._weights: list[NDArray[np.int64]] = []
        self._common: list[float] = []
        self._common_weights: list[int] = []

    def add_tokens(self, requests: NDArray[np.int64], previous: float, now: float) -> None:
        """Each of these requests got a token.

        Args:
            requests: int64 [n]: indices, each once.
            previous: when the step before this one ended, on the same replica.
            now: when this one did.
        """
        before = self.last[requests]
        self.last[requests] = now
        self.num_tokens[requests] += 1
        same = before == previous
        num_same = int(np.count_nonzero(same))
        if num_same:
            self._common.append(now - previous)
            self._common_weights.append(num_same)
            if num_same == len(requests):
                return
        is_first = np.isnan(before)
        self.first[requests[is_first]] = now
        other = now - before[~(same | is_first)]
        if other.size:
            self._gaps.append(other)
            self._weights.append(np.ones(other.size, dtype=np.int64))

    def add_run(self, requests: NDArray[np.int64], times: NDArray[np.float64]) -> None:
        """Each of these requests got a token at each of these times.

        Args:
            requests: int64 [n]: indices of requests that had a token before.
            times: float64 [num_steps + 1]: when the step before ended, and then each.
        """
        self.add_tokens(requests, float(times[0]), float(times[1]))
        num_more = len(times) - 2
        if num_more:
            self.last[requests] = times[-1]
            self.num_tokens[requests] += num_more
            self._gaps.append(np.diff(times[1:]))
            self._weights.append(np.full(num_more, len(requests), dtype=np.int64))

    def gaps(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Seconds between a token of a request and its next, float64 [n], and how often each, int64 [n]."""
        return (
            np.concatenate((np.array(self._common, dtype=np.float64), *self._gaps)),
            np.concatenate((np.array(self._common_weights, dtype=np.int64), *self._weights)),
        )
