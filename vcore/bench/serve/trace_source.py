"""`TraceSource`: requests of a recorded trace, with prompts made up so that they share what they shared then."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from vcore.bench.serve.request import LoadRequest
from vcore.traces import Trace, TraceRequest, scale_times

__all__ = ["TraceSource"]

_KEPT_BLOCKS = 4096


class TraceSource:
    """A block id becomes the same token ids wherever it stands, so that a prefix cache hits as it would have."""

    def __init__(self, trace: Trace, *, vocab_size: int, num_cut: int = 0) -> None:
        """Args:
        trace: scaled and cut already.
        vocab_size: token ids are below it.
        num_cut: how many of its requests were cut.
        """
        self.num_cut = num_cut
        self._trace = trace
        self._vocab_size = vocab_size

    @property
    def name(self) -> str:
        """The file's."""
        return self._trace.name

    @property
    def count(self) -> int:
        """All of the trace."""
        return len(self._trace.requests)

    def recorded_times(self, rate: float | None) -> npt.NDArray[np.float64]:
        """Arrivals, from 0.

        Raises:
            ConfigError: there is a rate, and all arrived at once.
        """
        trace = self._trace if rate is None else scale_times(self._trace, rate)
        return np.array([request.arrival_s for request in trace.requests])

    def requests(self, count: int, seed: int) -> Iterator[LoadRequest]:
        """The first `count`, from the beginning again if there are fewer. Prompts are made as they are taken."""

        @lru_cache(_KEPT_BLOCKS)
        def block(block_id: int) -> list[int]:
            return self._random([seed, 0, block_id % 2**63], self._trace.block_size or 0)

        recorded = self._trace.requests
        for index in range(count):
            one = recorded[index % len(recorded)]
            made = LoadRequest(num_output_tokens=one.output_length, priority=one.priority)
            if one.text is not None:
                made.text = one.text
            elif one.block_ids:
                made.token_ids = [token for block_id in one.block_ids for token in block(block_id)][: one.input_length]
            else:
                made.token_ids = self._own(one, index, seed)
            yield made

    def _own(self, one: TraceRequest, index: int, seed: int) -> list[int]:
        return self._random([seed, 1, index], one.input_length)

    def _random(self, seeds: list[int], size: int) -> list[int]:
        ids: list[int] = np.random.default_rng(seeds).integers(0, self._vocab_size, size=size).tolist()
        return ids
