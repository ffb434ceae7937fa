"""`FakeRequest`: a request as scheduling and routing policies see it, for tests that ask a policy directly."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["FakeRequest"]

_arrivals = itertools.count()


@dataclass(eq=False)
class FakeRequest:
    """What `RequestView` and `ArrivalView` of `vcore.interfaces` ask for, settable. Each arrives after those before."""

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
    """What `prefix_hashes` answers."""
    cached: int = 0
    """What `num_cached_tokens` answers."""

    @property
    def request_id(self) -> str:
        """By its arrival."""
        return f"r{self.arrival_index}"

    @property
    def num_tokens(self) -> int:
        """Prompt and generated tokens."""
        return self.num_prompt_tokens + self.num_output_tokens

    def num_cached_tokens(self) -> int:
        """`cached`."""
        return self.cached

    def prefix_hashes(self) -> Sequence[bytes]:
        """`hashes`."""
        return self.hashes
