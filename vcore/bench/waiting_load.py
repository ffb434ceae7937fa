"""`WaitingLoad`: a fixed number of requests that wait while others run, end, and are replaced."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from vcore.engine.core import EngineCore
from vcore.engine.request import EngineRequest
from vcore.sampling_params import SamplingParams

__all__ = ["MAX_OUTPUT_LEN", "MAX_PROMPT_LEN", "WaitingLoad"]

PREFIX_LEN = 128
MAX_PROMPT_LEN = PREFIX_LEN + 128
MIN_OUTPUT_LEN = 32
MAX_OUTPUT_LEN = 96
NUM_PREFIXES = 50
NUM_TENANTS = 64


@dataclass(slots=True)
class WaitingLoad:
    """Requests of many lengths, tenants, priorities and targets; every second one shares a prefix with others.

    In each step the requests that ended are replaced by as many arrivals, which is part of the step's time.
    """

    core: EngineCore
    vocab_size: int
    num_added: int = 0
    times: list[float] = field(default_factory=list)
    """Seconds of each step."""
    _rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    _prefixes: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._prefixes = [self._tokens(PREFIX_LEN) for _ in range(NUM_PREFIXES)]

    def fill(self, count: int) -> None:
        """Add `count` requests."""
        for request in [self._request() for _ in range(count)]:
            self.core.add_request(request)

    def run(self, num_steps: int) -> None:
        """Time so many steps."""
        for _ in range(num_steps):
            began = time.perf_counter()
            output = self.core.step()
            elapsed = time.perf_counter() - began
            # Making a request is no part of a step.
            arrivals = [self._request() for _ in output.finished]
            began = time.perf_counter()
            for request in arrivals:
                self.core.add_request(request)
            self.times.append(elapsed + time.perf_counter() - began)

    def _request(self) -> EngineRequest:
        rng, index = self._rng, self.num_added
        self.num_added += 1
        prompt = self._tokens(int(rng.integers(16, MAX_PROMPT_LEN - PREFIX_LEN)))
        if index % 2:
            prompt = self._prefixes[int(rng.integers(NUM_PREFIXES))] + prompt
        length = int(rng.integers(MIN_OUTPUT_LEN, MAX_OUTPUT_LEN + 1))
        params = SamplingParams(
            temperature=0.0,
            max_tokens=length,
            ignore_eos=True,
            priority=int(rng.integers(-2, 3)),
            tenant=f"tenant-{int(rng.zipf(1.5)) % NUM_TENANTS}",
            ttft_target_s=float(rng.uniform(0.5, 60.0)),
            expected_tokens=length if index % 3 else None,
        )
        return EngineRequest(
            request_id=f"waiting-{index}",
            prompt_token_ids=prompt,
            params=params,
            max_tokens=length,
            arrival_time=time.monotonic(),
        )

    def _tokens(self, count: int) -> list[int]:
        tokens: list[int] = self._rng.integers(0, self.vocab_size, size=count).tolist()
        return tokens
