"""`LoadSource`: where the requests of a load come from; and the made-up ones of a named workload."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vcore.bench.serve.request import LoadRequest
from vcore.bench.workloads import WORKLOADS, make_workload

__all__ = ["LoadSource", "RandomSource", "as_text"]


class LoadSource(Protocol):
    """Makes requests, as many as are wanted."""

    @property
    def name(self) -> str:
        """For the report."""
        ...

    @property
    def count(self) -> int:
        """How many it has by itself."""
        ...

    def requests(self, count: int, seed: int) -> Iterator[LoadRequest]:
        """`count` requests; another seed gives other token ids, so that a run finds nothing of the last one cached."""
        ...

    @property
    def num_cut(self) -> int:
        """How many of its requests were cut to what the target can serve."""
        ...

    def recorded_times(self, rate: float | None) -> npt.NDArray[np.float64] | None:
        """Seconds at which its requests arrived once, from 0; at another pace if there is a rate; None if never.

        Raises:
            ConfigError: the pace cannot be changed, as all arrived at once.
        """
        ...


class RandomSource:
    """A workload of `vcore.bench.workloads`."""

    def __init__(self, name: str, *, vocab_size: int) -> None:
        """Args:
        name: of the workload.
        vocab_size: token ids are below it.
        """
        self._name = name
        self._vocab_size = vocab_size

    @property
    def name(self) -> str:
        """The workload's."""
        return self._name

    @property
    def count(self) -> int:
        """The workload's own."""
        return WORKLOADS[self._name].num_requests

    def requests(self, count: int, seed: int) -> Iterator[LoadRequest]:
        """Lengths as the workload has them, random ids."""
        for one in make_workload(self._name, vocab_size=self._vocab_size, seed=seed, num_requests=count):
            yield LoadRequest(token_ids=one.prompt_token_ids, num_output_tokens=one.num_output_tokens)

    @property
    def num_cut(self) -> int:
        """None."""
        return 0

    def recorded_times(self, rate: float | None) -> None:
        """It was made up."""


_WORDS = (
    "the of and to in is you that it he was for on are as with his they at be this have from or one had by word but",
    "not what all were we when your can said there use an each which she do how their if will up other about out many",
    "then them these so some her would make like him into time has look two more write go see",
)
_VOCABULARY = " ".join(_WORDS).split()


def as_text(request: LoadRequest) -> LoadRequest:
    """The request with a common English word, about one token, in place of each id."""
    if request.token_ids is None:
        return request
    text = " ".join(_VOCABULARY[token % len(_VOCABULARY)] for token in request.token_ids)
    return LoadRequest(text=text, num_output_tokens=request.num_output_tokens, priority=request.priority)
