"""`Workload`: prompts of random token ids with the lengths that a benchmark asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vcore.errors import ConfigError

__all__ = ["WORKLOADS", "Workload", "WorkloadRequest", "make_workload"]


@dataclass(frozen=True, slots=True)
class WorkloadRequest:
    """One prompt and how many tokens to generate for it."""

    prompt_token_ids: list[int]
    num_output_tokens: int


Lengths = Callable[[np.random.Generator, int], list[tuple[int, int, int]]]
"""From a generator and a number of requests to ``(shared prefix, own prompt, output)`` lengths."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A named shape of traffic."""

    name: str
    summary: str
    num_requests: int
    lengths: Lengths


def _nano(rng: np.random.Generator, count: int) -> list[tuple[int, int, int]]:
    sizes = rng.integers(100, 1025, size=(count, 2))
    return [(0, int(prompt), int(output)) for prompt, output in sizes]


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload("nano", "prompts and outputs uniform in 100..1024", 256, _nano),
        Workload("single", "one stream: 128 in, 256 out", 1, lambda _, count: [(0, 128, 256)] * count),
        Workload("shared_prefix", "2048 shared + 64 own in, 64 out", 256, lambda _, count: [(2048, 64, 64)] * count),
        Workload("long_prefill", "8000 in, 16 out", 16, lambda _, count: [(0, 8000, 16)] * count),
    )
}
"""By name."""


def make_workload(name: str, *, vocab_size: int, seed: int, num_requests: int | None = None) -> list[WorkloadRequest]:
    """Prompts of uniformly random token ids; another `seed` gives the same lengths and fresh ids.

    Args:
        name: one of `WORKLOADS`.
        vocab_size: ids are below it.
        seed: of the ids.
        num_requests: instead of the workload's own number.

    Raises:
        ConfigError: there is no such workload.
    """
    if name not in WORKLOADS:
        raise ConfigError(f"no workload {name!r}; there are {', '.join(WORKLOADS)}")
    workload = WORKLOADS[name]
    lengths = workload.lengths(np.random.default_rng(0), num_requests or workload.num_requests)
    rng = np.random.default_rng([seed, len(lengths)])
    shared = rng.integers(0, vocab_size, size=max(prefix for prefix, _, _ in lengths)).tolist()
    return [
        WorkloadRequest(shared[:prefix] + rng.integers(0, vocab_size, size=own).tolist(), output)
        for prefix, own, output in lengths
    ]
