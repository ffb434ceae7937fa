"""A request as a policy sees it, for tests that ask a policy directly, and the context that it is built with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from vcore.interfaces.scheduling import SchedulingContext

CONTEXT = SchedulingContext(max_num_seqs=4, max_num_batched_tokens=16, block_size=4, num_blocks=10)

_arrivals = itertools.count()


@dataclass(eq=False)
class View:
    """What the protocol `RequestView` asks for, all of it settable."""

    arrival_index: int = field(default_factory=lambda: next(_arrivals))
    arrival_time: float = 0.0
    priority: int = 0
    tenant: str | None = None
    ttft_target_s: float | None = None
    itl_target_s: float | None = None
    expected_tokens: int | None = None
    num_prompt_tokens: int = 8
    num_output_tokens: int = 0
    num_computed_tokens: int = 0
    max_tokens: int = 1000
    num_preemptions: int = 0
    hashes: Sequence[bytes] = ()
    cached: int = 0

    @property
    def request_id(self) -> str:
        return f"r{self.arrival_index}"

    @property
    def num_tokens(self) -> int:
        return self.num_prompt_tokens + self.num_output_tokens

    def num_cached_tokens(self) -> int:
        return self.cached

    def prefix_hashes(self) -> Sequence[bytes]:
        return self.hashes
